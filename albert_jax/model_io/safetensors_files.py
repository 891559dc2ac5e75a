"""Safetensors files, read with limits and written one tensor at a time.

The format: 8 bytes (little-endian length of the header), a JSON header naming dtype, shape and
byte range of each tensor, then the bytes. The library parses the file; what it leaves open (a
header of 100 MB, any dtype, repeated names, any number of tensors) is closed here before it is
called, so that a hostile file costs nothing but its own refusal. The bytes are read here: it maps
files, and mapped pages stay with the process, so that a conversion held its source, its result and
both files (xxlarge: 3.8 GB of memory for 0.9).
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from albert_jax.errors import CheckpointError, StorageError
from albert_jax.files import storage_errors
from albert_jax.files.json_files import no_constant, unique_keys

HEADER_LIMIT = 1 << 20
TENSOR_LIMIT = 10_000
_CHUNK = 1 << 24
"""Bytes that are copied at a time while writing."""
_TYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {_TYPES[code]: code for code in ("F32", "F16", "BF16")}


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of one checked file; each is read when it is asked for."""

    def __init__(self, path: Path, header: dict[str, dict[str, Any]], begin: int) -> None:
        self.path = path
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self.shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        self.dtypes = {name: entry["dtype"] for name, entry in header.items()}
        self._ranges = {
            name: (begin + entry["data_offsets"][0], begin + entry["data_offsets"][1])
            for name, entry in header.items()
        }
        try:
            with safe_open(str(path), framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise _broken(path, f"the safetensors library refuses it ({error})") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.shapes:
            raise KeyError(name)
        begin, end = self._ranges[name]
        with storage_errors(str(self.path)), self.path.open("rb") as file:
            file.seek(begin)
            found = np.fromfile(file, np.uint8, end - begin)
        if len(found) != end - begin:
            raise _broken(self.path, f"{name} ends early: it was changed while it was read")
        return found.view(_TYPES[self.dtypes[name]]).reshape(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def read(path: str | os.PathLike[str]) -> Tensors:
    """Opens a safetensors file after checking its header against its size.

    Raises CheckpointError (one line, with the tensor's name) for anything malformed.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise _broken(path, f"it has {size} bytes, fewer than a header")
            (length,) = struct.unpack("<Q", start)
            if length > HEADER_LIMIT:
                raise _broken(path, f"its header claims {length} bytes (limit {HEADER_LIMIT})")
            if length > size - 8:
                raise _broken(path, f"its header claims {length} of {size} bytes: it is truncated")
            raw = file.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder, not a safetensors file") from None
    except PermissionError as error:
        raise StorageError(f"{path}: {error.strerror}: make it readable") from None
    header = _parse(path, raw)
    _check_ranges(path, header, size - 8 - length)
    return Tensors(path, header, 8 + length)


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Writes tensors sorted by name, one at a time, under a temporary name that is then renamed.

    Args:
      path: the file; whatever stood there is replaced in one step.
      tensors: name -> array (views and transposes are fine: parts are copied while written).
      metadata: strings for the header ({"format": "pt"} is what Transformers asks for).
      dtype: type to store, by default each array's own (float32, float16, bfloat16).
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in sorted(tensors):
        kind = np.dtype(dtype if dtype is not None else tensors[name].dtype)
        if kind not in _CODES:
            raise CheckpointError(f"{name} has type {kind}: store float32, float16 or bfloat16")
        shape = [int(n) for n in tensors[name].shape]
        end = offset + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": _CODES[kind], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in sorted(tensors):
                array = np.atleast_1d(np.asarray(tensors[name]))
                rows = max(1, _CHUNK * len(array) // max(array.nbytes, 1))
                for first in range(0, len(array), rows):
                    part = array[first : first + rows]
                    part = np.ascontiguousarray(part, dtype=dtype or array.dtype)
                    file.write(part.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: {error.strerror}: free space or choose another place"
        ) from None


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=unique_keys, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not the JSON of a safetensors file ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    if len(header) > TENSOR_LIMIT:
        raise _broken(path, f"it names {len(header)} tensors (limit {TENSOR_LIMIT})")
    notes = header.get("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise _broken(path, "its __metadata__ holds something other than strings")
    return header


def _check_ranges(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    """Every tensor's shape fits its range; the ranges fill the file without gap or overlap."""
    ranges = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _broken(path, f"{name} lacks dtype, shape or data_offsets, or has more")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _TYPES:
            raise _broken(path, f"{name} has dtype {dtype!r}; known: {', '.join(_TYPES)}")
        if not _naturals(shape) or len(shape) > 8:
            raise _broken(path, f"{name} has shape {str(shape)[:60]}")
        if not _naturals(offsets) or len(offsets) != 2:
            raise _broken(path, f"{name} has data_offsets {str(offsets)[:60]}")
        begin, end = offsets
        # Python integers do not overflow, so a shape of many large factors is simply too large.
        if math.prod(shape) * _TYPES[dtype].itemsize != end - begin:
            raise _broken(path, f"{name}: {dtype} {shape} does not fill bytes {begin} to {end}")
        ranges.append((begin, end, name))
    expected = 0
    for begin, end, name in sorted(ranges):
        if begin != expected:
            raise _broken(path, f"{name} begins at byte {begin} instead of {expected} of the data")
        expected = end
    if expected != data_bytes:
        kind = "truncated" if expected > data_bytes else "followed by other bytes"
        raise _broken(path, f"its tensors need {expected} bytes, it has {data_bytes}: it is {kind}")


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path}: {why}: fetch or export the file again")
