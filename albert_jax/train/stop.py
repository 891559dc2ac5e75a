"""When to stop: one question, asked after each step, that every process answers alike.

One process: our own handler for SIGTERM and SIGINT. The first signal lets the running step end
(the loop then saves and leaves with 75), the second ends the process at once. Several
processes: JAX's preemption service hears SIGTERM on any of them and agrees on the step after
which all stop; it hears nothing else, so SIGINT is passed on as SIGTERM.

SIGHUP (a closed terminal) is ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from jax.experimental import multihost_utils


class Stop:
    """Context manager around a run's loop; ``stop(step)`` says whether to stop after `step`.

    Args:
      process_count: processes of the run; with several, ``jax.distributed`` is initialized.
    """

    def __init__(self, process_count: int = 1) -> None:
        self._several = process_count > 1
        self._heard: list[int] = []
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._pipe: tuple[int, int] | None = None

    @property
    def cause(self) -> str:
        """What asked to stop, for the last line ("SIGTERM")."""
        return signal.Signals(self._heard[0]).name if self._heard else "SIGTERM"

    def __call__(self, step: int) -> bool:
        """Whether to save and leave now. Every process asks once after every step, in order."""
        if self._several:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return bool(self._heard)

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self  # a notebook's or test's thread: signals belong to its main thread
        # Python runs its handlers between bytecodes of the main thread only, so not while XLA
        # compiles for a minute; the byte in this pipe reaches our thread at once.
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=self._pipe[:1], daemon=True).start()
        # With several processes SIGTERM already belongs to JAX's preemption service.
        for number in (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, _nothing)
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            os.close(self._pipe[1])  # the listener reads the end and closes its own side
            self._pipe = None

    def _listen(self, source: int) -> None:
        while data := os.read(source, 64):
            for number in data:
                if number not in (signal.SIGINT, signal.SIGTERM):
                    continue
                self._heard.append(number)
                if len(self._heard) > 1:
                    _tell(f"{signal.Signals(number).name} again: leaving at once, nothing saved")
                    os._exit(128 + number)
                _tell(
                    f"{signal.Signals(number).name}: finishing this step, then saving and leaving "
                    "(again: leave at once)"
                )
                if self._several:
                    os.kill(os.getpid(), signal.SIGTERM)
        os.close(source)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Takes the place of the default action; the listener's thread does what is to be done."""


def _tell(line: str) -> None:
    try:
        os.write(2, (line + "\n").encode())
    except OSError:
        return
