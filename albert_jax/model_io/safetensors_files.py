"""Safetensors files, read by the library within limits and written one tensor at a time.

The library checks that types, shapes and byte ranges fill the file exactly. Its limits are wide
(a header of 100 MB, any number of tensors of any type), so narrower ones are checked here before
a tensor is read. Files are written here, because the library wants all tensors contiguous at
once: the transposed and cast copies would double the memory of a conversion.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from albert_jax.errors import CheckpointError
from albert_jax.files import storage_error, storage_errors
from albert_jax.model_io.weights import LazyTensors

HEADER_LIMIT = 1 << 20
TENSOR_LIMIT = 10_000
_CHUNK = 1 << 20
"""Values that are copied or compared at a time."""
_READ_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL")
_WRITTEN_TYPES = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
}


class Tensors(LazyTensors):
    """The tensors of one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens and checks a file. Raises CheckpointError, one line, for a malformed one."""
        self.path = Path(path)
        if not self.path.is_file():
            problem = "it is a folder" if self.path.is_dir() else "no such file"
            raise CheckpointError(f"{path}: {problem}: give the path of a safetensors file")
        _check_header_length(self.path)
        with _opened(self.path) as file:
            names = list(file.keys())
            if len(names) > TENSOR_LIMIT:
                raise CheckpointError(
                    f"{path} holds {len(names)} tensors (limit {TENSOR_LIMIT}): it is no ALBERT"
                )
            slices = {name: file.get_slice(name) for name in names}
            self.metadata: dict[str, str] = file.metadata() or {}
            self.shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            self.dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
        for name, dtype in self.dtypes.items():
            if dtype not in _READ_TYPES:
                raise CheckpointError(
                    f"{path}: {name} has dtype {dtype!r}; known: {', '.join(_READ_TYPES)}: "
                    "save it as float32"
                )
        super().__init__({name: name for name in names}, self._tensor)

    def _tensor(self, name: str) -> np.ndarray:
        with _opened(self.path) as file:
            return file.get_tensor(name)


def _check_header_length(path: Path) -> None:
    with storage_errors(str(path)), path.open("rb") as file:
        start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) == 8 and length > HEADER_LIMIT:
        raise CheckpointError(
            f"{path}: its header claims {length} bytes (limit {HEADER_LIMIT}): fetch or export "
            "the file again"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The library's view of a file; its errors become one line that names the file."""
    try:
        # Not mapped, because mapped pages would stay with the process.
        with safe_open(str(path), framework="numpy", backend="pread") as file:
            yield file
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is no valid safetensors file ({reason}): fetch or export it again"
        ) from None
    except OSError as error:
        raise storage_error(str(path), error) from error


def write(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Writes tensors sorted by name; equal tensors give equal bytes.

    Args:
      path: The file, in a folder that is still being made.
      tensors: Name -> array. Views are fine, because parts are copied while they are written.
      metadata: Strings for the header; {"format": "pt"} is what Transformers asks for.
      dtype: Type to store (float32, float16, bfloat16); the default is each array's own.

    Raises:
      CheckpointError: An array has another type.
      StorageError: The disk is full or not writable.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in sorted(tensors):
        kind = np.dtype(dtype if dtype is not None else tensors[name].dtype)
        if kind not in _WRITTEN_TYPES:
            raise CheckpointError(f"{name} has type {kind}: store float32, float16 or bfloat16")
        shape = [int(n) for n in tensors[name].shape]
        end = offset + math.prod(shape) * kind.itemsize
        header[name] = {
            "dtype": _WRITTEN_TYPES[kind],
            "shape": shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with storage_errors(str(path)), path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            for part in chunks(np.asarray(tensors[name])):
                part = np.ascontiguousarray(part, dtype=dtype or part.dtype)
                file.write(part.reshape(-1).view(np.uint8).data)


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of an array in row-major order, of about a million values at most."""
    if array.size <= _CHUNK:
        yield array
        return
    rows = _CHUNK * len(array) // array.size
    if rows:
        for start in range(0, len(array), rows):
            yield array[start : start + rows]
    else:
        for row in array:
            yield from chunks(row)
