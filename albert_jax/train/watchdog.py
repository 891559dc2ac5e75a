"""Ends a run that hangs, with the stacks of all threads and one line that says where it hangs.

A collective whose peer is gone never returns. JAX alone notices a killed peer after 98 s (by
aborting) and a peer that is alive but stuck never. So two threads watch:

- One exchanges beats with the other processes through the coordination service's key-value store,
  and ends the run when the beats of a process stop.
- One ends the run when this process makes no progress, or when process 0, which holds the store,
  does not answer a request to it.

In every case the exit code is 6 and the last line names the stage or the peer. Process 0 leaves
last, because JAX aborts the others as soon as the store is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from albert_jax import exits
from albert_jax.errors import AlbertError, Stopped
from albert_jax.parallel.jax_internals import coordination_client, process_count, process_index

BEAT_SECONDS = 2.0
PEER_SECONDS = 16.0
"""The longest silence of another process."""
LINGER_SECONDS = 4.0
"""Time that process 0 waits for the others, which notice the same failure up to a beat later.
These three times together stay below the 30 s within which a gone peer is to be named."""
_PREFIX = "albert_jax/beat/"


class Watchdog:
    """Context manager around a run's loop.

    `seconds` is the longest time between two beats; 0 watches the other processes only.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._index, self._count = process_index(), process_count()
        self._last = (time.monotonic(), "start", 0)
        """Time, stage and step of the last beat of this process."""
        self._peers: dict[int, dict[str, Any]] = {}
        """The newest beat of each other process."""
        self._unanswered_since: float | None = None
        """Start of the first request to process 0 without an answer."""
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def beat(self, stage: str, step: int) -> None:
        """Tells that this process is alive: it begins `stage` ("data", "step", ...) of `step`."""
        self._last = (time.monotonic(), stage, step)

    def __enter__(self) -> Watchdog:
        self.beat("start", 0)
        if self._count > 1:
            # At once and not after the first pause, because a process that is gone before it has
            # published anything would never be missed.
            self._publish(0)
            self._start(self._watch_peers)
        if self._seconds > 0 or self._index:
            self._start(self._watch_progress)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        unknown = isinstance(error, Exception) and not isinstance(error, AlbertError)
        if self._count > 1 and unknown and not exits.is_out_of_memory(error):
            # A collective may have failed because a peer died (a JaxRuntimeError or, from the
            # dispatch path, a ValueError): the peer's silence is the better last line.
            self._ended.wait(PEER_SECONDS + 3 * BEAT_SECONDS + LINGER_SECONDS)
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=BEAT_SECONDS)
        if self._count > 1:
            # Others may still work (on a last evaluation) and must not take this for a death. The
            # service itself may be gone already.
            failed = error is not None and not isinstance(error, Stopped)
            with contextlib.suppress(Exception):
                self._publish(-1, done=True, error=str(error)[:500] if failed else None)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=target.__name__, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _watch_progress(self) -> None:
        pause = min(1.0, self._seconds / 4) if self._seconds else 1.0
        while not self._ended.wait(pause):
            now, (last, stage, step) = time.monotonic(), self._last
            silence = now - (self._unanswered_since or now)
            if self._index and silence > PEER_SECONDS:
                self._end(
                    f"process 0 (the coordinator) is stopped: silent for {silence:.0f} s; "
                    "start the same command again"
                )
            elif 0 < self._seconds < now - last:
                self._end(
                    f"no progress for {self._seconds:g} s in stage {stage!r} of step {step}"
                    f"{self._processes_behind()}; see the stacks above, then start the same "
                    "command again"
                )

    def _watch_peers(self) -> None:
        last_change: dict[int, float] = {}
        for count in itertools.count(1):
            if self._ended.wait(BEAT_SECONDS):
                return
            self._unanswered_since = self._unanswered_since or time.monotonic()
            try:
                self._publish(count)
                beats = self._read()
            except Exception:  # noqa: BLE001  # A JaxRuntimeError; the other thread will notice.
                continue
            self._unanswered_since, now = None, time.monotonic()
            for peer, beat in beats.items():
                if beat != self._peers.get(peer):
                    last_change[peer] = now
                silence = now - last_change[peer]
                if beat["error"]:
                    self._end(f"process {peer} left, its last line: {beat['error']}")
                elif silence > PEER_SECONDS and not beat["done"]:
                    self._end(
                        f"process {peer} on host {beat['host']} is gone or stopped: silent for "
                        f"{silence:.0f} s, last in stage {beat['stage']!r} of step "
                        f"{beat['step']}; start the same command again"
                    )
            self._peers = beats

    def _publish(self, count: int, *, done: bool = False, error: str | None = None) -> None:
        """Publishes a beat; `error` is the line of the error that ended the run."""
        _, stage, step = self._last
        beat = {"count": count, "stage": stage, "step": step, "host": socket.gethostname()}
        coordination_client().key_value_set(
            f"{_PREFIX}{self._index}",
            json.dumps({**beat, "done": done, "error": error}),
            allow_overwrite=True,
        )

    def _read(self) -> dict[int, dict[str, Any]]:
        values = coordination_client().key_value_dir_get(_PREFIX)
        beats = {int(key.rsplit("/", 1)[-1]): json.loads(value) for key, value in values}
        return {peer: beat for peer, beat in beats.items() if peer != self._index}

    def _processes_behind(self) -> str:
        """A phrase about the processes that are behind the others; empty for a single process."""
        if not self._peers:
            return ""
        own = {"step": self._last[2], "stage": self._last[1]}
        beats = {**self._peers, self._index: own}
        first_step = min(beat["step"] for beat in beats.values())
        behind = [
            f"process {peer} in stage {beat['stage']!r} of step {beat['step']}"
            for peer, beat in sorted(beats.items())
            if beat["step"] == first_step
        ]
        if len(behind) == len(beats):
            return "; all processes are at this step"
        return "; behind the others: " + ", ".join(behind)

    def _end(self, line: str) -> None:
        if not self._ended.is_set():
            linger = LINGER_SECONDS if self._count > 1 and self._index == 0 else 0.0
            exits.abort(line, stacks=True, linger=linger)
            self._ended.set()
