"""Decision to stop a run, alike on every process: after each step, and before each batch of an
evaluation.

With one process, our own handler takes SIGTERM and SIGINT. The first signal lets the running step
or batch end (the loop then saves and exits with code 75); `exits.note_signal` tells of later ones.
With several processes, JAX's preemption service hears SIGTERM on any of them and agrees on the
question after which all stop, so all must ask equally often. The service hears nothing else, so
SIGINT is passed on as SIGTERM.

SIGHUP (a closed terminal) is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

from jax.experimental import multihost_utils

from albert_jax import exits
from albert_jax.parallel.jax_internals import process_count


class Stop:
    """Context manager around a run's loop; ``stop()`` says whether to stop now."""

    def __init__(self) -> None:
        self._distributed = process_count() > 1
        self._asked = 0
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._pipe: tuple[int, int] | None = None

    @property
    def cause(self) -> str:
        """Name of the signal that came, for the last line ("SIGTERM")."""
        return signal.Signals(self._received[0]).name if self._received else "SIGTERM"

    def __call__(self) -> bool:
        """Returns whether to save and exit now. Every process asks at the same places, in order.

        With several processes only one question is answered with True.
        """
        self._asked += 1
        if self._distributed:
            return bool(multihost_utils.reached_preemption_sync_point(self._asked))
        return bool(self._received)

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self  # The signals of a notebook's or test's thread belong to its main thread.
        exits.reset_signals()
        # Python runs its handlers between bytecodes of the main thread only, so not while XLA
        # compiles for a minute. The byte in this pipe reaches our thread at once.
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=self._pipe[:1], daemon=True).start()
        # With several processes SIGTERM already belongs to JAX's preemption service.
        numbers = (signal.SIGINT,) if self._distributed else (signal.SIGINT, signal.SIGTERM)
        for number in numbers:  # The listener does the work, so the handler itself does nothing.
            if signal.getsignal(number) is not signal.SIG_IGN:  # As `exits.signals`.
                self._previous[number] = signal.signal(number, lambda number, frame: None)
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._pipe is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            os.close(self._pipe[1])  # The listener reads the end and closes its own side.
            self._pipe = None

    def _listen(self, source: int) -> None:
        while data := os.read(source, 64):
            for number in data:
                if number not in (signal.SIGINT, signal.SIGTERM):
                    continue
                if not exits.note_signal(number):
                    continue
                self._received.append(number)
                again = " (again: at once)" if number == signal.SIGINT else ""
                name = signal.Signals(number).name
                _print(f"{name}: finishing this step, then saving and leaving{again}")
                if self._distributed:
                    os.kill(os.getpid(), signal.SIGTERM)
        os.close(source)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
