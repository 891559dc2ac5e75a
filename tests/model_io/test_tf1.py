"""TF1 checkpoints: complete ones are read, and every damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.errors import CheckpointError
from albert_jax.model_io import tf1
from albert_jax.protobuf_wire import WireError
from tests.model_io import tf1_files

VALUES = {
    "bert/embeddings/word_embeddings": np.arange(40, dtype=np.float32).reshape(8, 5),
    "bert/pooler/dense/bias": np.float32([1, 2, 3]),
    "global_step": np.array(12, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def prefix(tmp_path):
    tf1_files.write(tmp_path / "m.ckpt", VALUES)
    return tmp_path / "m.ckpt"


def test_variables_come_back_bit_by_bit(prefix):
    index = prefix.with_name("m.ckpt.index")
    assert {tf1.index_file(source) for source in (prefix.parent, prefix, index)} == {index}
    found = tf1.read_variables(index)
    assert set(found) == set(VALUES)
    for name, array in VALUES.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_the_originals_own_files_are_read(golden):
    indexes = sorted(golden.rglob("*.index"))
    assert indexes, f"{golden} holds no checkpoints"
    for index in indexes:
        variables = tf1.read_variables(index)
        assert len(variables) > 20
        sizes = sum(variables[name].nbytes for name in variables)  # Every checksum is verified.
        assert sizes == index.with_suffix(".data-00000-of-00001").stat().st_size


def test_tables_of_many_blocks():
    entries = {f"key/{i:05d}".encode(): bytes([i % 256]) * (i % 700) for i in range(3000)}
    assert tf1.parse_table(tf1_files.table(entries)) == entries


def test_every_flipped_byte_of_an_index_is_noticed(prefix):
    index = prefix.with_name("m.ckpt.index")
    content = index.read_bytes()
    for place in range(len(content)):
        index.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            tf1.read_variables(prefix.with_name("m.ckpt.index"))


def test_every_truncation_of_an_index_is_noticed():
    content = tf1_files.table({b"a": b"1", b"b": b"2"})
    for length in range(len(content)):
        with pytest.raises(WireError):
            tf1.parse_table(content[:length])


def test_flipped_data_name_the_variable(prefix):
    shard = prefix.with_name("m.ckpt.data-00000-of-00001")
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    found = tf1.read_variables(prefix.with_name("m.ckpt.index"))
    with pytest.raises(CheckpointError, match="checksum of bert/embeddings/word_embeddings"):
        found["bert/embeddings/word_embeddings"]
    assert found["global_step"] == 12


def test_truncated_and_missing_data(prefix):
    shard = prefix.with_name("m.ckpt.data-00000-of-00001")
    shard.write_bytes(shard.read_bytes()[:-1])
    found = tf1.read_variables(prefix.with_name("m.ckpt.index"))
    with pytest.raises(CheckpointError, match="truncated at global_step"):
        found["global_step"]
    shard.unlink()
    with pytest.raises(CheckpointError, match="this part of the checkpoint is missing"):
        found["global_step"]


def test_no_index_or_several(tmp_path):
    assert tf1.index_file(tmp_path) is None and tf1.index_file(tmp_path / "model.ckpt") is None
    for name in ("a", "b"):
        tf1_files.write(tmp_path / name, VALUES)
    with pytest.raises(CheckpointError, match=r"holds 2 \.index files"):
        tf1.index_file(tmp_path)
