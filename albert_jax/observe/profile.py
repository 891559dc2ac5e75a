"""A profiler trace of a few steps of a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import jax

from albert_jax import files

FOLDER = "profile"
"""Folder of a run's traces, which TensorBoard's profile plugin and Perfetto can read."""


class Trace:
    """Traces steps `first` to `last` (both counted from 1) of this process.

    `steps` is (first, last), or empty for no trace. A run that starts after `first` traces from
    its start; a run that ends before `last` keeps the trace up to its end. A process that does not
    write only waits as the others do.
    """

    def __init__(self, run_dir: str, steps: tuple[int, ...], *, writes: bool = True) -> None:
        self._writes = writes
        self._target = files.join(run_dir, FOLDER)
        self._first, self._last = steps or (0, -1)
        self._local: tempfile.TemporaryDirectory[str] | None = None

    def before(self, step: int) -> None:
        """Starts the trace if it is due; called before step number `step` goes to the devices."""
        if self._writes and self._local is None and self._first <= step <= self._last:
            # The profiler writes to local folders only, but a run may be in a bucket.
            self._local = tempfile.TemporaryDirectory(prefix="profile-")
            jax.profiler.start_trace(self._local.name)

    def after(self, step: int, wait: Callable[[], None]) -> None:
        """Ends the trace if step number `step` is its last; `wait` waits for the devices."""
        if step == self._last:
            wait()
            self.close()

    def close(self) -> None:
        """Ends a running trace and writes its files. Raises StorageError if that fails."""
        if self._local is None:
            return
        jax.profiler.stop_trace()
        with self._local as folder:
            self._local = None
            for name in files.file_sizes(folder):
                with open(os.path.join(folder, name), "rb") as file:
                    files.write(files.join(self._target, name), file.read())
