"""metrics.jsonl, the record of a run, with TensorBoard event files beside it.

Each line is one JSON object, a row. There are two kinds of rows, named by their field "kind":

- "train", one per logging step: step (optimizer steps done), phase (its number), loss, mlm_loss
  and sop_loss (means over the targets, in nats), mlm_loss_per_byte (nats per byte of the masked
  tokens), mlm_accuracy, sop_accuracy, learning_rate, gradient_norm, skipped_steps (of the whole
  run so far), real_token_share (of the rows' positions), tokens_per_second (real tokens over the
  time of steps and input), seconds (wall time since the row before, by stage, see clock.STAGES),
  goodput (share of that time spent on steps that were kept), eta (seconds), time (Unix), cost (if
  a price is known).
- "evaluation": step, phase and the named scores of the evaluation.

A number that is not finite is written as null, because JSON has no word for it. Rows of two runs
with the same seed are equal except for TIME_FIELDS.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from albert_jax import files
from albert_jax.errors import DataError, StorageError
from albert_jax.observe.events import EventFile

TIME_FIELDS = frozenset({"seconds", "goodput", "tokens_per_second", "eta", "time", "cost"})
"""Fields that depend on time, and so differ between two runs of the same seed."""

UPLOAD_SECONDS = 300.0
"""Time between two uploads to a bucket. Each checkpoint uploads as well."""

Row = dict[str, Any]

log = logging.getLogger(__name__)


def timeless(row: Mapping[str, object]) -> Row:
    """The row without its TIME_FIELDS: equal for equal seeds."""
    return {key: value for key, value in row.items() if key not in TIME_FIELDS}


def read_rows(run_dir: str) -> list[Row]:
    """All rows of a run in the order of writing; an incomplete last line is ignored.

    Raises:
      StorageError: The record cannot be read. (A run without a record has no rows.)
      DataError: A line of it is not a row.
    """
    path = _path(run_dir)
    return [row for _, row in _lines_and_rows(path, files.read(path) or b"")]


class MetricsWriter:
    """Writes the rows of one process.

    Rows that cannot be written (a full disk, an unreachable bucket) are kept, reported once, and
    written with a later row; training goes on. A local file is appended to; a bucket, where that
    is impossible, gets the whole object every UPLOAD_SECONDS and at each flush.
    """

    def __init__(self, run_dir: str) -> None:
        self._path = _path(run_dir)
        self._append = self._append_to_object if files.is_bucket(run_dir) else self._append_to_file
        self._seconds_between_writes = UPLOAD_SECONDS if files.is_bucket(run_dir) else 0.0
        self._last_write = time.monotonic()
        self._pending = b""
        self._object: bytes | None = None
        """Content of the object in a bucket, if it is known."""
        self._events: EventFile | None = EventFile(run_dir)
        self._reported: set[str] = set()

    def truncate_after(self, step: int) -> float:
        """Removes rows beyond `step`, from which a run continues, and an incomplete last line.

        Returns:
          The seconds that the removed rows had taken: lost time, for Clock.add.

        Raises:
          StorageError: The record cannot be rewritten.
          DataError: A line of it is not a row.
        """
        data = files.read(self._path)
        rows = _lines_and_rows(self._path, data or b"")
        kept = b"".join(line + b"\n" for line, row in rows if row["step"] <= step)
        if data is not None and kept != data:
            files.write(self._path, kept)
        self._object = kept
        self._with_events(lambda events: events.purge(step + 1))
        removed = [row for _, row in rows if row["step"] > step]
        return sum(sum(row.get("seconds", {}).values()) for row in removed)

    def write(self, row: Mapping[str, object]) -> None:
        """Adds one row; "kind" is "train" unless the row has another one."""
        plain = _plain({"kind": "train", **row, "time": round(time.time(), 3)})
        line = json.dumps(plain, allow_nan=False, separators=(",", ":"))
        self._pending += line.encode() + b"\n"
        if time.monotonic() - self._last_write >= self._seconds_between_writes:
            self._write_pending()
        self._with_events(lambda events: events.write(plain))

    def flush(self) -> None:
        """Writes buffered rows and events now instead of waiting for the next timed upload."""
        self._write_pending()
        self._with_events(lambda events: events.flush())

    def close(self) -> None:
        """Flushes everything; the writer takes no more rows."""
        self.flush()
        self._with_events(lambda events: events.close())
        self._events = None

    def _write_pending(self) -> None:
        if not self._pending:
            return
        self._last_write = time.monotonic()
        try:
            self._append(self._pending)
        except (OSError, StorageError) as error:
            self._report("metrics.jsonl", error)
            return
        self._pending = b""
        if "metrics.jsonl" in self._reported:
            self._reported.remove("metrics.jsonl")
            log.warning("metrics.jsonl can be written again; no row was lost")

    def _append_to_object(self, data: bytes) -> None:
        if self._object is None:
            self._object = files.read(self._path) or b""
        files.write(self._path, self._object + data)
        self._object += data

    def _append_to_file(self, data: bytes) -> None:
        """Appends complete lines, or nothing after an error."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _with_events(self, action: Callable[[EventFile], None]) -> None:
        if self._events is None:
            return
        try:
            action(self._events)
        except StorageError as error:  # A failed upload can be repeated.
            self._report("event files", error)
        except OSError as error:  # The file may end in the middle of an event.
            self._events = None
            self._report("event files", error)

    def _report(self, name: str, error: Exception) -> None:
        if name not in self._reported:
            self._reported.add(name)
            log.warning("%s cannot be written (%s); training goes on without it", name, error)


def _path(run_dir: str) -> str:
    return files.join(run_dir, "metrics.jsonl")


def _lines_and_rows(path: str, data: bytes) -> list[tuple[bytes, Row]]:
    complete, newline, _ = data.rpartition(b"\n")
    rows: list[tuple[bytes, Row]] = []
    for number, line in enumerate(complete.split(b"\n") if newline else [], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int):
                raise TypeError
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number} is not a row: remove that line") from error
        rows.append((line, row))
    return rows


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays of one number become numbers, non-finite ones None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
