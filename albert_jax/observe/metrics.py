"""metrics.jsonl, the record of a run, and TensorBoard event files beside it.

One JSON object per line; lines are written whole. Two kinds of rows, told apart by "kind":

- "train", one per logging step: step (optimizer steps done), phase (its number), loss,
  mlm_loss, sop_loss (means over what was asked, in nats), mlm_loss_per_byte (nats per byte of
  the masked pieces), mlm_accuracy, sop_accuracy, learning_rate, gradient_norm, skipped_steps
  (of the whole run so far), real_token_share (of the rows' places), tokens_per_second (real
  tokens over the time of steps and input), seconds (wall time since the row before, by stage,
  see clock.STAGES), goodput (share of that time that went to steps which were kept), eta
  (seconds), time (Unix), cost (if a price is known).
- "evaluation": step, phase and the named numbers of evaluate.pretraining.

A number that is not finite is written as null, for JSON has no word for it. Rows of two runs
with the same seed are equal but for TIME_FIELDS.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from albert_jax import files
from albert_jax.errors import DataError, StorageError
from albert_jax.observe.events import EventFile

TIME_FIELDS = frozenset({"seconds", "goodput", "tokens_per_second", "eta", "time", "cost"})
"""Fields that tell of time, and so differ between two runs of the same seed."""

BACKLOG = 10_000
"""Rows that are kept in memory while they cannot be written."""

PIECE_SECONDS = 60.0
"""Where files cannot be appended to (buckets): seconds between two uploaded pieces."""

Row = dict[str, object]


def timeless(row: Mapping[str, object]) -> Row:
    """The row without its TIME_FIELDS: equal for equal seeds."""
    return {key: value for key, value in row.items() if key not in TIME_FIELDS}


def read_rows(run_dir: str) -> list[Row]:
    """All whole rows of a run, in order of writing; a torn last line is passed over.

    Raises StorageError if the record cannot be read and DataError if a line of it is not a
    row; a run without a record has no rows.
    """
    return _parse(run_dir, _record(run_dir).load())


class MetricsWriter:
    """Writes the rows of one process; the loop's only way to the record.

    What cannot be written (a full disk) is kept, warned about once, and written with a later
    row; training goes on.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        events: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._record = _record(run_dir)
        self._events = EventFile(run_dir) if events else None
        self._warn = warn or (lambda line: print(line, file=sys.stderr))
        self._pending: list[str] = []
        self._troubled = False

    def truncate_after(self, step: int) -> float:
        """Drops rows beyond `step`, the step a run goes on from, and a torn last line.

        Returns the seconds that the dropped rows had taken: time lost, for Clock.add("lost").
        Raises StorageError if the record cannot be rewritten.
        """
        # A start that was killed while it rewrote the pieces has left some lines twice.
        lines = list(dict.fromkeys(self._record.load()))
        rows = _parse(self._run_dir, lines)
        beyond = [row["step"] > step for row in rows]  # type: ignore[operator]
        keep = [line for line, late in zip(lines, beyond, strict=True) if not late]
        self._record.replace(keep)
        self._event(lambda events: events.purge(step + 1))
        dropped = [row for row, late in zip(rows, beyond, strict=True) if late]
        return sum(sum(row.get("seconds", {}).values()) for row in dropped)  # type: ignore

    def write(self, row: Mapping[str, object]) -> None:
        """Appends one row; "kind" is "train" unless the row says otherwise."""
        plain = plain_row({"kind": "train", **row, "time": round(time.time(), 3)})
        self._pending.append(json.dumps(plain, allow_nan=False, separators=(",", ":")))
        self._flush_pending()
        self._event(lambda events: events.write(plain))

    def flush(self) -> None:
        """Brings all rows to their place, without waiting for a piece of a bucket to fill."""
        self._flush_pending()
        try:
            self._record.flush()
        except (OSError, StorageError) as error:
            self._trouble(error)

    def close(self) -> None:
        """Writes what is still kept back; the writer takes no more rows."""
        self.flush()
        self._event(lambda events: events.close())
        self._events = None

    def _flush_pending(self) -> None:
        if not self._pending:
            return
        try:
            self._record.append(self._pending)
        except (OSError, StorageError) as error:
            self._trouble(error)
            del self._pending[:-BACKLOG]
            return
        self._pending = []
        if self._troubled:
            self._troubled = False
            self._warn("metrics.jsonl can be written again; no row was lost")

    def _trouble(self, error: Exception) -> None:
        if not self._troubled:
            self._troubled = True
            self._warn(f"metrics.jsonl cannot be written ({error}); training goes on without it")

    def _event(self, action: Callable[[EventFile], None]) -> None:
        if self._events is None:
            return
        try:
            action(self._events)
        except (OSError, StorageError) as error:
            # What a full disk tore cannot be mended in the middle of an event file.
            self._events = None
            self._warn(f"event files cannot be written ({error}); training goes on without them")


class _Record(Protocol):
    def load(self) -> list[str]:
        """All whole lines."""
        ...

    def replace(self, lines: list[str]) -> None:
        """The record is these lines and no others."""

    def append(self, lines: list[str]) -> None:
        """Adds lines; all or, after an error, none."""

    def flush(self) -> None:
        """Brings what was taken to its place."""


def _record(run_dir: str) -> _Record:
    if files.is_bucket(run_dir):
        return _Pieces(run_dir)
    return _LocalFile(os.path.join(run_dir, "metrics.jsonl"))


class _LocalFile:
    """Appends whole lines to a local file; what a full disk tore is cut off again."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> list[str]:
        return _whole_lines(files.read(self._path) or b"")

    def replace(self, lines: list[str]) -> None:
        if lines or os.path.exists(self._path):
            files.write(self._path, "".join(line + "\n" for line in lines).encode())

    def append(self, lines: list[str]) -> None:
        data = "".join(line + "\n" for line in lines).encode()
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            try:
                while data:
                    data = data[os.write(handle, data) :]
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)

    def flush(self) -> None:
        pass


class _Pieces:
    """Numbered objects metrics/000000.jsonl ... of a folder that knows no append."""

    def __init__(self, run_dir: str) -> None:
        self._folder = files.join(run_dir, "metrics")
        self._waiting: list[str] = []
        self._last = time.monotonic()

    def load(self) -> list[str]:
        lines: list[str] = []
        for name in self._names():
            lines += _whole_lines(files.read(files.join(self._folder, name)) or b"")
        return lines

    def replace(self, lines: list[str]) -> None:
        self._waiting = []
        names = self._names()
        self._put(0, lines)
        for name in names:
            if name != _piece_name(0):
                files.delete(files.join(self._folder, name))

    def append(self, lines: list[str]) -> None:
        self._waiting += lines
        if time.monotonic() - self._last >= PIECE_SECONDS:
            self._upload()

    def flush(self) -> None:
        if self._waiting:
            self._upload()

    def _upload(self) -> None:
        self._last = time.monotonic()
        names = self._names()
        self._put(int(names[-1].partition(".")[0]) + 1 if names else 0, self._waiting)
        self._waiting = []

    def _put(self, number: int, lines: list[str]) -> None:
        data = "".join(line + "\n" for line in lines).encode()
        files.write(files.join(self._folder, _piece_name(number)), data)

    def _names(self) -> list[str]:
        return sorted(n for n in files.names(self._folder) if n.endswith(".jsonl"))


def _parse(run_dir: str, lines: list[str]) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int):
                raise TypeError
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{run_dir}: metrics.jsonl, line {number} is not a row: remove that line"
            ) from error
        rows.append(row)
    return rows


def _piece_name(number: int) -> str:
    return f"{number:06d}.jsonl"


def _whole_lines(data: bytes) -> list[str]:
    whole, _, _ = data.rpartition(b"\n")
    return whole.decode().split("\n") if whole else []


def plain_row(row: Mapping[str, object]) -> Row:
    """The row as JSON can hold it: numpy and jax scalars become numbers, non-finite ones None."""
    return {str(key): _plain(value) for key, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_row(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
