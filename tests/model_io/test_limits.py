"""Numbers and files that claim too much: refused in under a second, before memory is taken."""

from __future__ import annotations

import json
import os
import resource
import struct
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from albert_jax import configfile
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import AlbertError, CheckpointError, DataError
from albert_jax.export import huggingface as writer
from albert_jax.export.export import export
from albert_jax.model_io import directories, huggingface, safetensors_files
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.protobuf_wire import encode_varint
from tests.model_io.structures import STRUCTURES, pretrained, tiny

MEMORY = 400 << 20
SIZES = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups",
    "inner_group_num", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "type_vocab_size",
)  # fmt: skip


@contextmanager
def refused(match, error: type[Exception] = AlbertError):
    """The block raises one line, and cannot take much memory until then."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        with pytest.raises(error, match=match) as caught:
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "\n" not in str(caught.value)


@pytest.fixture
def exported(tmp_path):
    writer.export(pretrained(tiny()), tmp_path / "hf")
    return tmp_path / "hf"


def _change(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("value", [10**9, 2**62, 10**300, 0, -1], ids=lambda v: f"{v:.0e}")
@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_a_foreign_config(exported, name, value):
    _change(exported, **{name: value})
    with refused(name, CheckpointError):
        directories.read(exported)


@pytest.mark.parametrize(
    "entries",
    [
        {"num_hidden_layers": 1000, "num_hidden_groups": 1000, "inner_group_num": 1000},
        {"num_hidden_layers": 1000, "inner_group_num": 500, "sharing": "none"},
        {"hidden_size": 65536, "embedding_size": 32768, "intermediate_size": 262144},
        {"vocab_size": 1 << 20, "max_position_embeddings": 1 << 20},
    ],
    ids=lambda entries: " ".join(entries),
)
def test_sizes_that_are_large_only_together(exported, entries):
    _change(exported, **entries)
    with refused("blocks|do not belong together|has shape", CheckpointError):
        directories.read(exported)


def test_a_projection_that_would_need_a_large_identity(tmp_path):
    writer.export(pretrained(tiny(**STRUCTURES["equal"])), tmp_path / "hf")
    _change(tmp_path / "hf", hidden_size=65536, embedding_size=65536)
    with refused("is not the identity", CheckpointError):
        directories.read(tmp_path / "hf")


def test_sizes_of_a_config_of_ours(tmp_path):
    export(pretrained(tiny()), str(tmp_path / "n"), to="native")
    path = tmp_path / "n" / "config.toml"
    path.write_text(path.read_text().replace("num_hidden_layers = 3", "num_hidden_layers = 10**9"))
    path.write_text(path.read_text().replace("10**9", "1000000000"))
    with refused("num_hidden_layers is 1000000000"):
        directories.read(tmp_path / "n")
    assert replace(tiny(), num_hidden_layers=1000).num_hidden_layers == 1000
    for preset in configfile.presets():
        configfile.load(preset)


# ---- vocabularies --------------------------------------------------------------------------------


def test_a_word_list_of_millions_of_lines(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\n".join(b"%x" % i for i in range(2_000_000)))
    with refused("more than 1,048,576 lines", DataError):
        vocabularies.load(str(path))


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "spiece.model"
    with open(path, "wb") as file:
        file.truncate(1 << 33)
    with refused("has more than", DataError):
        vocabularies.load(str(path))
    path.unlink()
    with open(tmp_path / "vocabulary.json", "wb") as file:
        file.truncate(1 << 33)
    with refused("larger than 1 MB", DataError):
        vocabularies.load(str(tmp_path))


def test_a_model_of_millions_of_tokens(tmp_path):
    piece = b"\x0a\x01a"
    field = b"\x0a" + encode_varint(len(piece)) + piece
    (tmp_path / "spiece.model").write_bytes(field * 2_000_000)
    with refused("more than 1,048,576 tokens", DataError):
        vocabularies.load(str(tmp_path))


@pytest.mark.parametrize("size", [10**9, 2**62, 0, -5])
def test_a_range_of_ids(tmp_path, size):
    settings = {"kind": "ids", "size": size, "pad_id": 0, "cls_id": 1, "sep_id": 2, "mask_id": 3}
    (tmp_path / "vocabulary.json").write_text(json.dumps(settings | {"unk_id": -1}))
    with refused("a vocabulary of .* ids", DataError):
        vocabularies.load(str(tmp_path))


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[1 << 40], ["8"]], ids=str)
def test_tensors_that_lie(tmp_path, shape):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 32]}
    header = json.dumps({"a": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(32)
    (tmp_path / "x.safetensors").write_bytes(content)
    with refused("not a valid safetensors file", CheckpointError):
        Tensors(tmp_path / "x.safetensors")["a"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "spiece.model"])
def test_a_pipe_is_not_waited_for(exported, name):
    (exported / name).unlink()
    os.mkfifo(exported / name)
    with refused("pipe or device|no model.safetensors|no such file|no safetensors"):
        directories.read(exported)


@pytest.mark.parametrize("name", ["params.safetensors", "config.toml", "vocabulary/spiece.model"])
def test_a_pipe_in_a_directory_of_ours_is_not_waited_for(tmp_path, name):
    export(pretrained(tiny()), str(tmp_path / "n"), to="native")
    (tmp_path / "n" / name).unlink()
    os.mkfifo(tmp_path / "n" / name)
    with refused("pipe or device|does not exist|holds no model.safetensors"):
        directories.read(tmp_path / "n")


def test_a_pipe_beside_its_config(exported):
    os.mkfifo(exported / "alone.safetensors")
    with refused("holds no model.safetensors"):
        directories.read(exported / "alone.safetensors", config=str(exported / "config.json"))
    with refused("a pipe or device"):
        Tensors(exported / "alone.safetensors")


def test_what_is_within_the_limits_is_read(exported):
    assert directories.read(exported).config == tiny()
    tensors = dict(Tensors(exported / huggingface.WEIGHTS_NAME))
    safetensors_files.write(exported / "again.safetensors", tensors)
    again = Tensors(exported / "again.safetensors")
    assert all(np.array_equal(again[name], tensors[name]) for name in tensors)
