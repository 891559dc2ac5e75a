"""Safetensors: what the library writes is read, and no malformed file gets further."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albert_jax.errors import CheckpointError, StorageError
from albert_jax.model_io import safetensors_files

ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.ones((4,), np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(3, np.float32),
    "half": np.arange(3).astype(ml_dtypes.bfloat16),
}


def test_the_library_reads_what_we_write(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors_files.write(path, ARRAYS | {"t": ARRAYS["b"].T}, metadata={"format": "pt"})
    found = load_file(path)
    assert set(found) == {*ARRAYS, "t"}
    assert np.array_equal(found["t"], ARRAYS["b"].T)
    ours = safetensors_files.Tensors(path)
    assert ours.metadata == {"format": "pt"}
    for name, array in ARRAYS.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape
        assert ours[name].tobytes() == array.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_we_read_what_the_library_writes(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    found = safetensors_files.Tensors(tmp_path / "x.safetensors")
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_same_arrays_same_bytes(tmp_path):
    for name, arrays in (("x", ARRAYS), ("y", dict(reversed(ARRAYS.items())))):
        safetensors_files.write(tmp_path / name, arrays)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def _file(header: bytes | dict, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def _one(shape, offsets, dtype="F32"):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


BAD = {
    "nothing": b"",
    "header beyond the end": struct.pack("<Q", 100) + b"{}",
    "no JSON": _file(b"[[[["),
    "a list": _file(b"[]"),
    "NaN": _file(b'{"x":NaN}'),
    "deep": _file(b"[" * 100_000),
    "negative": _file(_one([-1], [0, 4]), bytes(4)),
    "boolean size": _file(_one([True], [0, 4]), bytes(4)),
    "float size": _file(_one([1.0], [0, 4]), bytes(4)),
    "overflow": _file(_one([2**33, 2**33], [0, 0])),
    "too short": _file(_one([3], [0, 8]), bytes(8)),
    "truncated": _file(_one([3], [0, 12]), bytes(8)),
    "surplus": _file(_one([3], [0, 12]), bytes(13)),
    "gap": _file(_one([1], [4, 8]), bytes(8)),
    "overlap": _file(_one([2], [0, 8]) | {"y": _one([2], [4, 12])["x"]}, bytes(12)),
    "three offsets": _file(_one([1], [0, 4, 4]), bytes(4)),
    "metadata": _file({"__metadata__": {"a": 1}}),
}
LIMITS = {
    "seven bytes": (b"\x01" * 7, "header claims"),
    "huge header": (struct.pack("<Q", 1 << 40) + b"{}", "header claims"),
}


@pytest.mark.parametrize("kind", BAD)
def test_malformed_files_are_refused_with_one_line(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD[kind])
    with pytest.raises(CheckpointError, match="not a valid safetensors file") as error:
        safetensors_files.Tensors(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", LIMITS)
def test_narrower_limits_than_the_librarys(tmp_path, kind):
    content, message = LIMITS[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        safetensors_files.Tensors(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors_files.write(path, ARRAYS)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            safetensors_files.Tensors(path)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match=r"x/y: .*No such file") as error:
        safetensors_files.write(tmp_path / "x" / "y", ARRAYS)
    assert "\n" not in str(error.value)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        safetensors_files.Tensors(tmp_path / "x")
    with pytest.raises(StorageError, match="folder"):
        safetensors_files.Tensors(tmp_path)
