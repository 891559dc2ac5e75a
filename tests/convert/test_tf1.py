"""TF1 checkpoints: byte for byte what the original's Saver writes, and strict on reading."""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.errors import CheckpointError
from albert_jax.model_io import tf1
from albert_jax.model_io import tf1_index as table_file
from albert_jax.protobuf_wire import WireError

VALUES = {
    "bert/embeddings/word_embeddings": np.arange(40, dtype=np.float32).reshape(8, 5),
    "bert/pooler/dense/bias": np.float32([1, 2, 3]),
    "global_step": np.array(12, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


def test_round_trip(tmp_path):
    tf1.write(tmp_path / "m.ckpt", VALUES)
    for source in (tmp_path, tmp_path / "m.ckpt", tmp_path / "m.ckpt.index"):
        found = tf1.read(source)
        assert set(found) == set(VALUES)
        for name, array in VALUES.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["m.ckpt.data-00000-of-00001", "m.ckpt.index"]


def test_tables_of_many_blocks():
    entries = {f"key/{i:05d}".encode(): bytes([i % 256]) * (i % 700) for i in range(3000)}
    assert table_file.parse(table_file.build(entries)) == entries


def test_every_flipped_byte_of_an_index_is_noticed(tmp_path):
    tf1.write(tmp_path / "m", VALUES)
    index = tmp_path / "m.index"
    content = index.read_bytes()
    for place in range(len(content)):
        index.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            tf1.read(tmp_path / "m")


def test_every_truncation_of_an_index_is_noticed():
    content = table_file.build({b"a": b"1", b"b": b"2"})
    for length in range(len(content)):
        with pytest.raises(WireError):
            table_file.parse(content[:length])


def test_flipped_data_name_the_variable(tmp_path):
    tf1.write(tmp_path / "m", VALUES)
    shard = tmp_path / "m.data-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    found = tf1.read(tmp_path / "m")
    with pytest.raises(CheckpointError, match="checksum of bert/embeddings/word_embeddings"):
        found["bert/embeddings/word_embeddings"]
    assert found["global_step"] == 12


def test_truncated_and_missing_data(tmp_path):
    tf1.write(tmp_path / "m", VALUES)
    shard = tmp_path / "m.data-00000-of-00001"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        tf1.read(tmp_path / "m")
    shard.unlink()
    with pytest.raises(CheckpointError, match="this part of the checkpoint is missing"):
        tf1.read(tmp_path / "m")


def test_no_index(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.ckpt\.index: no such file"):
        tf1.read(tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"holds 0 \.index files"):
        tf1.read(tmp_path)


def test_tf2_object_checkpoints_are_told_apart(tmp_path):
    tf1.write(tmp_path / "m", VALUES | {"_CHECKPOINTABLE_OBJECT_GRAPH": np.int64([1])})
    with pytest.raises(CheckpointError, match="TF2 object checkpoint"):
        tf1.read(tmp_path / "m")


def test_unknown_type_leaves_nothing_behind(tmp_path):
    with pytest.raises(CheckpointError, match="x has type complex64"):
        tf1.write(tmp_path / "m", {"x": np.zeros(2, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_the_originals_own_files_come_out_byte_for_byte(golden, tmp_path):
    found = sorted(golden.rglob("*.index"))
    assert found, f"{golden} holds no checkpoints"
    for index in found:
        variables = tf1.read(index)
        tf1.write(tmp_path / "m", variables)
        shard = index.with_suffix(".data-00000-of-00001")
        assert (tmp_path / "m.index").read_bytes() == index.read_bytes(), index
        assert (tmp_path / shard.name.replace(index.stem, "m")).read_bytes() == shard.read_bytes()
