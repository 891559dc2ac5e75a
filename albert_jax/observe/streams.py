"""Standard streams that never end a run: their reader may leave, or know no Unicode."""

from __future__ import annotations

import os
import sys
from typing import Any

STANDARD = (1, 2)
"""Descriptors of stdout and stderr."""


class Shielded:
    """A text stream that falls silent instead of failing when its reader is gone, and escapes
    characters that it cannot encode."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's own; returns the number of characters."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):
            self._silence()
            return len(text)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._silence()

    def _silence(self) -> None:
        # The descriptor itself goes to the null device: the interpreter flushes it once more at
        # its end, and would print a traceback and change the exit code.
        try:
            number = self._stream.fileno()
            if number in STANDARD:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shielded(stream: Any) -> Shielded:
    """The stream, shielded once; None (a program may be started without one) is nowhere."""
    if isinstance(stream, Shielded):
        return stream
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    return Shielded(stream)


def shield_output() -> None:
    """Makes a closed pipe, terminal or stream harmless to the prints of a run."""
    sys.stdout, sys.stderr = shielded(sys.stdout), shielded(sys.stderr)
