"""Messages and progress of a run: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from albert_jax.observe.clock import duration
from albert_jax.observe.streams import SafeStream

PLAIN_SECONDS = 10.0
"""Shortest time between two progress lines in a file or pipe, where they accumulate."""

_FIELDS = (
    ("mlm_loss", "mlm", ".3f"),
    ("sop_loss", "sop", ".3f"),
    ("mlm_accuracy", "mlm accuracy", ".1%"),
    ("sop_accuracy", "sop accuracy", ".1%"),
    ("learning_rate", "learning rate", ".2e"),
    ("tokens_per_second", "tokens/s", ",.0f"),
)
"""Fields of a progress line: key of the row, name, format."""


class Console:
    """Prints messages and progress, and never ends a run, whatever happens to the stream.

    On a terminal progress overwrites itself; elsewhere it is a plain line at most every
    PLAIN_SECONDS. A closed pipe (`| head`) silences it.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = SafeStream(sys.stdout if stream is None else stream)
        self._now, self._quiet = now, quiet
        self._live = not quiet and _is_terminal(self._stream)
        self._live_width = 0
        self._last_plain = float("-inf")

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        clear = "\r" + " " * self._live_width + "\r" if self._live_width else ""
        self._live_width = 0
        self._write(clear + line + "\n")

    def progress(self, line: str) -> None:
        """Replaces the progress line on a terminal; elsewhere prints it if the last one is old."""
        if self._live:
            shown = line[: max(1, shutil.get_terminal_size().columns - 1)]
            blank = " " * max(0, self._live_width - len(shown))
            self._live_width = len(shown)
            self._write("\r" + shown + blank)
        elif self._now() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = self._now()
            self._write(line + "\n")

    def close(self) -> None:
        """Ends a live line, so that later output starts on a new line."""
        if self._live_width:
            self._live_width = 0
            self._write("\n")

    def _write(self, text: str) -> None:
        if not self._quiet:
            self._stream.write(text)
            self._stream.flush()


def progress_line(row: Mapping[str, object], total_steps: int) -> str:
    """The progress line of a training row: step, losses, learning rate, speed, time left."""
    parts = [f"step {row.get('step', 0)}/{total_steps}"]
    loss = () if "mlm_loss" in row else (("loss", "loss", ".3f"),)
    for key, name, form in (*loss, *_FIELDS):
        value = row.get(key)
        if isinstance(value, int | float):
            parts.append(f"{name} {value:{form}}")
    if row.get("skipped_steps"):
        parts.append(f"skipped {row['skipped_steps']}")
    eta = row.get("eta")
    if isinstance(eta, int | float):
        parts.append(f"{duration(eta)} left")
    return "  ".join(parts)


def _is_terminal(stream: SafeStream) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False
