"""metrics.jsonl, the metrics of a run, with TensorBoard event files beside it.

Each line is one JSON object, a row. There are two kinds of rows, named by their field "kind":

- "train", one per logging step: step (optimizer steps done), phase (its number), loss, mlm_loss,
  sop_loss and word_loss (means over the targets, in nats), mlm_loss_per_byte (nats per byte of the
  masked tokens), mlm_accuracy, sop_accuracy, word_accuracy, learning_rate, grad_norm,
  skipped_steps (of the whole run so far), real_token_share (of the rows' positions),
  tokens_per_second (real tokens over the time of steps and input), seconds (wall time since the row
  before, by stage, see clock.STAGES),
  goodput (share of that time spent in training steps), eta (seconds), time (Unix), cost (if
  a price is known), left_out_documents (of damaged records, if there are any).
- "evaluation": step, phase and the named scores of the evaluation.

A number that is not finite is written as null, because JSON has no word for it. Two runs with the
same seed have equal rows except for seconds, goodput, tokens_per_second, eta, time and cost.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from albert_jax import files
from albert_jax.observe import events
from albert_jax.observe.append_only_file import AppendOnlyFile

UPLOAD_SECONDS = 300.0
"""Time between two uploads of metrics.jsonl to a bucket. Each checkpoint uploads it as well."""

TIMES = frozenset({"seconds", "goodput", "tokens_per_second", "eta", "time", "cost"})
"""Fields of a row in which two runs with the same seed differ."""

Row = dict[str, Any]

log = logging.getLogger(__name__)


def read_rows(run_dir: str) -> list[Row]:
    """All rows of a run in the order of writing; an incomplete last line is ignored.

    Other lines that are not rows, which a bad disk or an editor has made, are left out with a
    warning. Raises StorageError if the file exists but cannot be read.
    """
    path = _path(run_dir)
    return [row for _, row in _lines_and_rows(path, files.read(path) or b"")]


class MetricsWriter:
    """Writes the rows of one process to metrics.jsonl and to an event file of its own."""

    def __init__(self, run_dir: str) -> None:
        self._path = _path(run_dir)
        self._rows = AppendOnlyFile(self._path, upload_seconds=UPLOAD_SECONDS)
        self._event_folder = files.join(run_dir, "events")
        self._events: AppendOnlyFile | None = None

    def truncate_after(self, step: int, *, evaluated: bool = True) -> float:
        """Removes the rows after `step`, where the run continues, and lines that are not rows.

        It is called before the first row is written. Without `evaluated` the run continues with
        the evaluation of that step, whose row is removed too.

        Returns:
          The seconds that the removed rows had taken: lost time, for Clock.add.

        Raises:
          StorageError: The file cannot be rewritten.
        """
        data = files.read(self._path) or b""
        rows = _lines_and_rows(self._path, data)

        def stays(row: Mapping[str, Any]) -> bool:
            repeated = row["step"] == step and row.get("kind") == "evaluation" and not evaluated
            return row["step"] <= step and not repeated

        kept = b"".join(line + b"\n" for line, row in rows if stays(row))
        if kept != data:
            files.write(self._path, kept)
        if files.is_folder(self._event_folder):
            self._append_event(events.restart(step + 1))
        removed = [row for _, row in rows if not stays(row)]
        return sum(sum(filter(None, row.get("seconds", {}).values())) for row in removed)

    def write(self, row: Mapping[str, object]) -> None:
        """Adds one row; "kind" is "train" unless the row has another one."""
        written = plain({"kind": "train", **row, "time": round(time.time(), 3)})
        line = json.dumps(written, allow_nan=False, separators=(",", ":"))
        self._rows.append(line.encode() + b"\n")
        self._append_event(events.event(written))

    def flush(self) -> None:
        """Writes buffered rows and events now instead of waiting for the next timed upload."""
        self._rows.flush()
        if self._events is not None:
            self._events.flush()

    def _append_event(self, event: bytes) -> None:
        if self._events is None:
            self._events = AppendOnlyFile(files.join(self._event_folder, events.file_name()))
            event = events.header() + event
        self._events.append(event)


def _path(run_dir: str) -> str:
    return files.join(run_dir, "metrics.jsonl")


def _lines_and_rows(path: str, data: bytes) -> list[tuple[bytes, Row]]:
    complete, newline, _ = data.rpartition(b"\n")
    lines = complete.split(b"\n") if newline else []
    rows = [(line, row) for line in lines if (row := row_of(line)) is not None]
    if len(rows) < len(lines):
        bad = [number for number, line in enumerate(lines, start=1) if row_of(line) is None]
        shown = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        log.warning("%s: line %s is not a row of metrics and is left out", path, shown)
    return rows


def row_of(line: bytes) -> Row | None:
    """A line of metrics.jsonl; None for one that is damaged or has a value of another type."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    seconds, kind = row.get("seconds", {}), row.setdefault("kind", "train")
    numbers = [value for name, value in row.items() if name not in ("seconds", "kind")]
    typed = isinstance(seconds, dict) and isinstance(kind, str)
    return row if typed and all(map(_is_number, [*numbers, *seconds.values()])) else None


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: arrays of one number become numbers, non-finite ones None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
