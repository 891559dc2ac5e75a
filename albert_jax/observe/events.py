"""A TensorBoard event file beside metrics.jsonl, written without TensorFlow."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from albert_jax import files

FLUSH_SECONDS = 10.0
"""Time between two flushes of a local file, each of which waits for the disk."""


class EventFile:
    """A TensorBoard event file with one event per row, written in the calling thread.

    tensorboardX's own SummaryWriter passes events to a thread through a queue of ten. A full disk
    ends that thread, and the eleventh row would then wait forever.

    A bucket cannot be appended to, so there the file grows in a temporary folder and is uploaded
    by :meth:`flush` only, which the run calls at each checkpoint and at its end.
    """

    def __init__(self, run_dir: str) -> None:
        self._folder = files.join(run_dir, "events")
        self._name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if files.is_bucket(run_dir):
            self._temporary = tempfile.TemporaryDirectory(prefix="events-")
        self._local_folder = self._temporary.name if self._temporary else self._folder
        self._writer: Any = None
        self._flushed = time.monotonic()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds all numbers of a plain row of metrics.jsonl; nested ones as "outer/inner"."""
        prefix = "evaluation/" if row["kind"] == "evaluation" else "train/"
        values = [
            {"tag": prefix + tag, "simple_value": number}
            for tag, number in _numbers(row, "")
            if tag not in ("step", "time")
        ]
        self._add(step=row["step"], wall_time=row["time"], summary={"value": values})
        if self._temporary is None and time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def purge(self, first_step: int) -> None:
        """Makes TensorBoard drop events of earlier processes for this step and later ones."""
        if files.names(self._folder):
            self._add(step=first_step, wall_time=time.time(), session_log={"status": "START"})

    def flush(self) -> None:
        """Brings everything to the disk or bucket."""
        self._flushed = time.monotonic()
        if self._writer is None:
            return
        self._writer.flush()
        if self._temporary is not None:
            source = os.path.join(self._local_folder, self._name)
            files.upload(source, files.join(self._folder, self._name))

    def close(self) -> None:
        """Closes the file; the caller has flushed it."""
        if self._writer is not None:
            self._writer.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _add(self, **event: Any) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        make = event_pb2.Event  # type: ignore[attr-defined]  # protobuf makes it at run time.
        if self._writer is None:
            os.makedirs(self._local_folder, exist_ok=True)
            self._writer = RecordWriter(os.path.join(self._local_folder, self._name))
            first = make(wall_time=time.time(), file_version="brain.Event:2")
            self._writer.write(first.SerializeToString())
        self._writer.write(make(**event).SerializeToString())


def _numbers(row: Mapping[str, object], prefix: str) -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((prefix + key, value))
    return numbers
