"""A profiler trace of a few steps of a run, written when it is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from albert_jax import files

FOLDER = "profile"
"""Folder of a run with its traces; TensorBoard's profile plugin and Perfetto read them."""


class Trace:
    """Traces steps `first` to `last` (both counted from 1) of this process.

    `steps` is (first, last), or empty for no trace at all. A run that starts behind `first`
    traces from there on; a run that ends before `last` keeps what there is.
    """

    def __init__(self, run_dir: str, steps: tuple[int, ...]) -> None:
        self._target = files.join(run_dir, FOLDER)
        self._first, self._last = steps or (0, -1)
        self._local: tempfile.TemporaryDirectory[str] | None = None

    def before(self, step: int) -> None:
        """Call it before step number `step` is handed to the devices."""
        if self._local is None and self._first <= step <= self._last:
            import jax

            # The profiler knows local folders only, a run may lie in a bucket.
            self._local = tempfile.TemporaryDirectory(prefix="profile-")
            jax.profiler.start_trace(self._local.name)

    def after(self, step: int, wait: Callable[[], None]) -> None:
        """Call it after step number `step`; `wait` returns once the devices have done it."""
        if self._local is not None and step >= self._last:
            wait()
            self.close()

    def close(self) -> None:
        """Ends a trace that is under way and writes its files.

        Raises StorageError if they cannot be written.
        """
        if self._local is None:
            return
        import jax

        jax.profiler.stop_trace()
        with self._local as folder:
            self._local = None
            for name in files.file_sizes(folder):
                with open(os.path.join(folder, name), "rb") as file:
                    files.write(files.join(self._target, name), file.read())
