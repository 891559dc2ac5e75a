"""What a run tells a person while it goes: one live line, or plain lines without a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from albert_jax.observe.clock import duration
from albert_jax.observe.streams import shielded

PLAIN_SECONDS = 10.0
"""Least time between two progress lines where they pile up (a file, a pipe)."""


class Console:
    """Prints messages and progress; never ends a run, whatever becomes of the stream.

    On a terminal progress overwrites itself; elsewhere it is a plain line every
    PLAIN_SECONDS. A closed pipe (`| head`) silences it.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = shielded(sys.stdout if stream is None else stream)
        self._now, self._quiet = now, quiet
        self._live = not quiet and _is_terminal(self._stream)
        self._width_shown = 0
        self._last_plain = float("-inf")

    def say(self, line: str) -> None:
        """One lasting line."""
        clear = "\r" + " " * self._width_shown + "\r" if self._width_shown else ""
        self._width_shown = 0
        self._write(clear + line + "\n")

    def progress(self, line: str, *, always: bool = False) -> None:
        """The state of things: replaces the last progress line on a terminal; elsewhere it is
        dropped if the last one is younger than PLAIN_SECONDS, unless `always`."""
        if self._live:
            columns = shutil.get_terminal_size().columns
            shown = line[: max(1, columns - 1)]
            blank = " " * max(0, self._width_shown - len(shown))
            self._width_shown = len(shown)
            self._write("\r" + shown + blank)
        elif always or self._now() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = self._now()
            self._write(line + "\n")

    def close(self) -> None:
        """Ends a live line, so that what follows starts on its own."""
        if self._width_shown:
            self._width_shown = 0
            self._write("\n")

    def _write(self, text: str) -> None:
        if not self._quiet:
            self._stream.write(text)
            self._stream.flush()


def progress_line(row: Mapping[str, object], total_steps: int) -> str:
    """The progress line of a training row of metrics.jsonl: step, losses, rate, time left."""
    step = row.get("step", 0)
    parts = [f"step {step}/{total_steps}"]
    for key, name, form in (
        *(() if "mlm_loss" in row else (("loss", "loss", ".3f"),)),
        ("mlm_loss", "mlm", ".3f"),
        ("sop_loss", "sop", ".3f"),
        ("mlm_accuracy", "mlm accuracy", ".1%"),
        ("sop_accuracy", "sop accuracy", ".1%"),
        ("learning_rate", "rate", ".2e"),
        ("tokens_per_second", "tokens/s", ",.0f"),
    ):
        value = row.get(key)
        if isinstance(value, int | float):
            parts.append(f"{name} {value:{form}}")
    skipped = row.get("skipped_steps")
    if skipped:
        parts.append(f"skipped {skipped}")
    eta = row.get("eta")
    if isinstance(eta, int | float):
        parts.append(f"{duration(eta)} left")
    return "  ".join(parts)


def _is_terminal(stream: Any) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False
