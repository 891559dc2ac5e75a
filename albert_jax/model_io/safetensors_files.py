"""Safetensors files; the library checks that types, shapes and byte ranges fill a file exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from albert_jax.errors import CheckpointError
from albert_jax.files import sha256, storage_error, storage_errors
from albert_jax.json_files import json_bytes
from albert_jax.local_disk import require_regular
from albert_jax.model_io.weights import LazyTensors

REPORT_NAME = "conversion.json"
HEADER_LIMIT = 8 << 20
"""Largest header in bytes, far below the library's own limit of 100 MB."""


class Tensors(LazyTensors):
    """The tensors of one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens and checks a file. Raises CheckpointError, one line, for a malformed one."""
        self.path = Path(path)
        with storage_errors(str(path)):
            require_regular(str(path))
            with self.path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
        if length > HEADER_LIMIT:
            raise CheckpointError(
                f"{path}: its header claims {length} bytes (limit {HEADER_LIMIT}): fetch or export "
                "the file again"
            )
        with _opened(self.path) as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            names = {name: name for name in file.keys()}  # noqa: SIM118
        super().__init__(names, self._tensor)

    def _tensor(self, name: str) -> np.ndarray:
        with _opened(self.path) as file:
            return file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The library's view of a file; its errors become one line that names the file."""
    try:
        # Not mapped, because mapped pages would stay with the process.
        with storage_errors(str(path)), safe_open(str(path), "numpy", backend="pread") as file:
            yield file
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not a valid safetensors file ({reason}): fetch or export it again"
        ) from None


def write(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    metadata: dict[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Writes tensors into a folder that is still being made; equal tensors give equal bytes.

    `metadata` are strings for the header; `dtype` is the type to store, by default each array's
    own. Raises StorageError if the disk is full or not writable.
    """
    # The library stores the memory of an array as it lies, so transposed views must be copied.
    arrays = {name: np.asarray(array, dtype, order="C") for name, array in tensors.items()}
    try:
        save_file(arrays, path, metadata=metadata)
        path.chmod(0o644)  # The library lets nobody else read its files.
    except (SafetensorError, OSError) as error:
        raise storage_error(str(path), error) from error


def report(path: Path, expected: Mapping[str, Any]) -> str:
    """Compares a written file with the tensors that were meant, and returns a summary.

    The differences and the SHA-256 of the file are also written beside it, without times and paths,
    so that equal conversions give equal bytes.
    """
    stored, differences = Tensors(path), {}
    for name in sorted(expected):
        tensor, differences[name] = stored[name], 0.0
        if not np.array_equal(tensor, expected[name]):  # This needs less memory.
            difference = np.subtract(tensor, expected[name], dtype=np.float32)
            differences[name] = float(np.abs(difference).max())
    largest = max(differences.values())
    digest = {path.name: sha256(str(path))}
    content = json_bytes({"max_difference": largest, "tensors": differences, "sha256": digest})
    path.with_name(REPORT_NAME).write_bytes(content)
    return f"{len(differences)} tensors, largest difference {largest:.3g}"
