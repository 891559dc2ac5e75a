"""Messages and progress of a run: one live line on a terminal, plain lines elsewhere.

Output never ends a run: a stream whose reader is gone falls silent.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from albert_jax.observe.clock import duration

PLAIN_SECONDS = 10.0
"""Shortest time between two progress lines in a file or pipe, where they accumulate."""

_FIELDS = (
    ("mlm_loss", "mlm", ".3f"),
    ("sop_loss", "sop", ".3f"),
    ("word_loss", "word", ".3f"),
    ("mlm_accuracy", "mlm accuracy", ".1%"),
    ("sop_accuracy", "sop accuracy", ".1%"),
    ("word_accuracy", "word accuracy", ".1%"),
    ("learning_rate", "learning rate", ".2e"),
    ("tokens_per_second", "tokens/s", ",.0f"),
)
"""Fields of a progress line: key of the row, name, format."""
_STANDARD_DESCRIPTORS = (1, 2)


class SafeStream:
    """A text stream that falls silent instead of failing when its reader is gone.

    Characters that the stream cannot encode are escaped. A stream that is None, because the
    program was started without one, is replaced by the null device.
    """

    def __init__(self, stream: Any) -> None:
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes as the stream does; returns the number of characters."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):
            self._silence()
            return len(text)

    def flush(self) -> None:
        """Flushes as the stream does."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._silence()

    def _silence(self) -> None:
        # The descriptor itself is connected to the null device, because the interpreter flushes it
        # once more at its end, and would print a traceback and change the exit code.
        try:
            number = self._stream.fileno()
            if number in _STANDARD_DESCRIPTORS:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_output() -> Iterator[None]:
    """Inside the block a closed pipe or terminal does not fail what prints."""
    with redirect_stdout(SafeStream(sys.stdout)), redirect_stderr(SafeStream(sys.stderr)):  # type: ignore[type-var]
        yield


def terminal_width(text: str) -> int:
    """Columns of a terminal that a text takes: characters of East Asian scripts take two."""
    marks = sum(unicodedata.combining(c) > 0 for c in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


class Console:
    """Prints messages and progress.

    On a terminal progress overwrites itself; elsewhere it is a plain line at most every
    PLAIN_SECONDS.
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


def progress_line(row: Mapping[str, Any], total_steps: int) -> str:
    """The progress line of a training row: step, losses, learning rate, speed, time left."""
    parts = [f"step {row['step']}/{total_steps}"]
    loss = () if "mlm_loss" in row else (("loss", "loss", ".3f"),)
    for key, name, form in (*loss, *_FIELDS):
        if row.get(key) is not None:
            parts.append(f"{name} {row[key]:{form}}")
    if row.get("skipped_steps"):
        parts.append(f"skipped {row['skipped_steps']}")
    parts.append(f"{duration(row['eta'])} left")
    return "  ".join(parts)


def _is_terminal(stream: SafeStream) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False
