"""Standard streams that never end a run when their reader leaves or knows no Unicode."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

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
