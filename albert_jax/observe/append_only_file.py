"""A file of a run that only grows, on a local disk or in a bucket."""

from __future__ import annotations

import logging
import os
import time

from albert_jax import files
from albert_jax.errors import StorageError

log = logging.getLogger(__name__)


class AppendOnlyFile:
    """Appends to a local file at once; in a bucket it rewrites the whole object from time to time.

    Data that cannot be written (a full disk, an unreachable bucket) is kept, reported once, and
    written with later data; training goes on.

    Args:
      path: The file or object.
      upload_seconds: The time between two uploads to a bucket, besides those of :meth:`flush`.
    """

    def __init__(self, path: str, *, upload_seconds: float = float("inf")) -> None:
        self._path, self._in_bucket = path, files.is_bucket(path)
        self._seconds_between_writes = upload_seconds if self._in_bucket else 0.0
        self._last_write = time.monotonic()
        self._pending = b""
        self._uploaded: bytes | None = None
        """The content of the object in a bucket, once it is known."""
        self._failing = False

    def append(self, data: bytes) -> None:
        """Adds data that is kept together: after an error all of it is missing or none."""
        self._pending += data
        if time.monotonic() - self._last_write >= self._seconds_between_writes:
            self.flush()

    def flush(self) -> None:
        """Writes pending data now instead of waiting for the next timed upload."""
        if not self._pending:
            return
        self._last_write = time.monotonic()
        try:
            if self._in_bucket:
                self._append_to_object()
            else:
                self._append_to_file()
        except (OSError, StorageError) as error:
            if not self._failing:
                log.warning(
                    "%s cannot be written (%s); training goes on without it", self._path, error
                )
            self._failing = True
            return
        self._pending = b""
        if self._failing:
            self._failing = False
            log.warning("%s can be written again; nothing was lost", self._path)

    def _append_to_object(self) -> None:
        if self._uploaded is None:
            self._uploaded = files.read(self._path) or b""
        files.write(self._path, self._uploaded + self._pending)
        self._uploaded += self._pending

    def _append_to_file(self) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path, "ab", buffering=0) as file:
            size, data = file.tell(), self._pending
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(size)
                raise
