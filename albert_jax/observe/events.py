"""A TensorBoard event file beside metrics.jsonl, written without TensorFlow."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from albert_jax import files

FLUSH_SECONDS = 10.0
"""Seconds between two flushes (each waits for the disk)."""


class EventFile:
    """A TensorBoard event file: one event a row, written in the thread that calls.

    tensorboardX's own SummaryWriter hands events to a thread through a queue of ten; a full
    disk ends that thread, and the eleventh row would then wait for ever.
    """

    def __init__(self, run_dir: str) -> None:
        self._target = files.join(run_dir, "events")
        self._bucket = files.is_bucket(run_dir)
        # A bucket cannot be appended to: the file grows here and is sent whole at each flush.
        self._folder = tempfile.mkdtemp(prefix="events-") if self._bucket else self._target
        self._name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._writer = None
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
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def purge(self, first_step: int) -> None:
        """Tells TensorBoard to forget what earlier processes wrote for this step and later."""
        if files.names(self._target):
            self._add(step=first_step, wall_time=time.time(), session_log={"status": "START"})

    def close(self) -> None:
        """Brings everything to its place; the file takes no more rows."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None
        if self._bucket:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, **event: Any) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        make = event_pb2.Event  # type: ignore[attr-defined] - protobuf makes it at run time
        if self._writer is None:
            os.makedirs(self._folder, exist_ok=True)
            self._writer = RecordWriter(os.path.join(self._folder, self._name))
            first = make(wall_time=time.time(), file_version="brain.Event:2")
            self._writer.write(first.SerializeToString())
        self._writer.write(make(**event).SerializeToString())

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._writer is None:
            return
        self._writer.flush()
        if self._bucket:
            data = files.read(os.path.join(self._folder, self._name)) or b""
            files.write(files.join(self._target, self._name), data)


def _numbers(row: Mapping[str, object], prefix: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((prefix + key, value))
    return found
