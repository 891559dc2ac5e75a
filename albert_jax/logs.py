"""Log messages: our own as lines on stderr, those of libraries in a run into a file of its folder.

A failed save makes Orbax print hundreds of lines, from several threads and perhaps after our own
last line. In a run they are kept in ``RUN/libraries.log``, which our last line names.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from typing import Any

from albert_jax.errors import one_line

FILE = "libraries.log"
MAX_WAITING = 1000
"""Most messages that are kept in memory while a full disk takes none."""


class LibraryLog(logging.Handler):
    """Handler of the root logger.

    Without a file, errors (with `debug` also warnings) are lines on stderr. With a file, warnings
    and errors go there. A message that the disk does not take waits in memory for the next try.
    """

    def __init__(self, *, debug: bool = False) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        self._debug, self._path = debug, ""
        self._waiting: list[str] = []
        self._used = False

    def use_folder(self, folder: str) -> None:
        """From now on messages go into the file in `folder`; in the temporary one for a bucket."""
        if self._debug:
            return
        name = f"albert-jax-{os.getpid()}-{FILE}"
        in_bucket = "://" in folder
        self._path = os.path.join(tempfile.gettempdir(), name) if in_bucket else f"{folder}/{FILE}"

    def emit(self, record: logging.LogRecord) -> None:
        """Prints or keeps one message; never fails."""
        if not self._path:
            if self._debug or record.levelno >= logging.ERROR:
                print(record.getMessage() if not record.exc_info else self.format(record),
                      file=sys.stderr)  # fmt: skip
            return
        self._used = True
        self._waiting = [*self._waiting[1 - MAX_WAITING :], self.format(record) + "\n"]
        self._write()

    def keep_trace(self, error: BaseException) -> None:
        """Puts the trace of an error of ours into the file, if there is one."""
        if self._path:
            trace = (type(error), error, error.__traceback__)
            values = ("albert_jax", logging.ERROR, __file__, 0, "%s", (error,), trace)
            self.handle(logging.LogRecord(*values))

    def file(self) -> str | None:
        """The path of the file if this process has written to it."""
        self.acquire()
        try:
            if self._waiting:
                self._write()
            return self._path if self._used and not self._waiting else None
        finally:
            self.release()

    def _write(self) -> None:
        try:
            with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(self._waiting))
        except OSError:
            return
        self._waiting = []


libraries = LibraryLog()
"""The messages of libraries in this process; `set_up` begins anew."""


def set_up(debug: bool) -> None:
    """Our own messages are plain lines on stderr; those of libraries go to LibraryLog."""
    global libraries
    ours, libraries = logging.StreamHandler(), LibraryLog(debug=debug)
    ours.setFormatter(_OneLine())
    package, root = logging.getLogger("albert_jax"), logging.getLogger()
    package.handlers, package.propagate = [ours], False
    package.setLevel(logging.INFO)
    root.handlers = [libraries]


class _OneLine(logging.Formatter):
    """Warnings quote the files of others as errors do."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(record.getMessage())


def catch_everything() -> None:
    """Also takes what Python itself would print: warnings, and errors that end a thread."""

    def of_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread else "?"
        error = found.exc_value or found.exc_type()
        logging.getLogger("thread").error("thread %s: %s", name, error, exc_info=error)

    def unraisable(found: Any) -> None:
        error, place = found.exc_value, found.object
        logging.getLogger("python").error("ignored in %r: %s", place, error, exc_info=error)

    logging.captureWarnings(True)
    threading.excepthook, sys.unraisablehook = of_thread, unraisable
