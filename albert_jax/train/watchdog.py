"""Ends a run that hangs, with the stacks of all threads and one line that says where.

A collective whose peer is gone never returns, and JAX alone notices a killed peer after 98 s
(by aborting) and one that is alive but stuck never. So a thread of ours watches two things:

- this process: no :meth:`Watchdog.beat` for `seconds` ends the run;
- the others, through the coordination service's key-value store: every process publishes a
  counter every two seconds, and one that stands still for `peer_seconds` is gone or stopped.
  Process 0 holds the store: if it is stopped, a question to the store never returns, so a second
  thread watches how long the question has been out.

Either way: exit code 6, and the last line names the stage or the peer. Process 0 leaves last,
because JAX aborts the others as soon as the store is gone.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Protocol

from albert_jax.errors import AlbertError, PeerError, Stopped

BEAT_SECONDS = 2.0
PEER_SECONDS = 16.0
LINGER_SECONDS = 4.0
"""How long process 0 waits for the others, which notice the same thing up to a beat later. All
together stays below the 30 s after which a gone peer is to be named."""


class Store(Protocol):
    """What is used of the coordination service's client."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = ...) -> Any:
        """Sets a key."""
        ...

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        """All keys below a prefix, with their values."""
        ...


class Watchdog:
    """Context manager around a run's loop.

    Args:
      seconds: longest time between two beats; 0: only the other processes are watched.
      process_index: this process.
      process_count: processes of the run.
      store: the coordination service's client; by default that of ``jax.distributed``.
      peer_seconds: longest silence of another process.
      leave: called with the last line and the seconds to linger instead of leaving (tests).
    """

    def __init__(
        self,
        seconds: float,
        *,
        process_index: int = 0,
        process_count: int = 1,
        store: Store | None = None,
        peer_seconds: float = PEER_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        leave: Callable[[str, float], None] | None = None,
    ) -> None:
        self._seconds = seconds
        self._index = process_index
        self._count = process_count
        self._store = store
        self._peer_seconds = peer_seconds
        self._beat_seconds = beat_seconds
        self._leave = leave or _leave
        self._last = (time.monotonic(), "start", 0)
        self._asked: float | None = None
        """When the question to the store that is out now was asked."""
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def beat(self, stage: str, step: int) -> None:
        """Says that this process is alive: it begins `stage` ("data", "step", ...) of `step`."""
        self._last = (time.monotonic(), stage, step)

    def __enter__(self) -> Watchdog:
        self._last = (time.monotonic(), "start", 0)
        if self._seconds > 0:
            self._start(self._watch_self)
        if self._count > 1:
            if self._store is None:
                from jax._src import distributed  # no public name in jax 0.10

                self._store = distributed.global_state.client
            # At once, not after the first pause: who is gone before it has said a word would
            # never be missed.
            self._publish(0)
            self._start(self._watch_peers)
            if self._index:
                self._start(self._watch_coordinator)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._count > 1 and isinstance(error, Exception) and not isinstance(error, AlbertError):
            # Perhaps a collective that failed because a peer died (a JaxRuntimeError or, from
            # the dispatch path, a ValueError): let the silence name it before this error is told.
            self._ended.wait(self._peer_seconds + 3 * self._beat_seconds + LINGER_SECONDS)
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=self._beat_seconds)
        if self._count > 1 and self._store is not None:
            # Others may still work on (a last evaluation): a goodbye is not a silence.
            left = None if error is None or isinstance(error, Stopped) else str(error)[:500]
            try:
                self._publish(-1, left)
            except Exception:  # noqa: BLE001  # the service may be gone already at the end
                return

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"watchdog-{work.__name__}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _watch_self(self) -> None:
        while not self._ended.wait(min(1.0, self._seconds / 4)):
            when, stage, step = self._last
            if time.monotonic() - when > self._seconds:
                peers = self._laggards()
                self._end(
                    f"no progress for {self._seconds:g} s in stage {stage!r} of step {step}"
                    f"{peers}; see the stacks above, then start the same command again"
                )
                return

    def _watch_peers(self) -> None:
        seen: dict[int, tuple[str, float]] = {}
        count = 0
        silent_since: float | None = None
        while not self._ended.wait(self._beat_seconds):
            count += 1
            self._asked = time.monotonic()
            try:
                self._publish(count)
                table = self._read()
                silent_since = None
            except Exception as error:  # noqa: BLE001  # the client raises JaxRuntimeError
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > self._peer_seconds:
                    self._end(f"process 0 (the coordinator) does not answer: {error}")
                    return
                continue
            finally:
                self._asked = None
            now = time.monotonic()
            for peer, value in table.items():
                if peer not in seen or seen[peer][0] != value:
                    seen[peer] = (value, now)
                    if left := json.loads(value)["left"]:
                        self._end(f"process {peer} left, its last line: {left}")
                        return
                elif now - seen[peer][1] > self._peer_seconds:
                    told = json.loads(value)
                    if told["count"] < 0:
                        continue  # it has said goodbye
                    self._end(
                        f"process {peer} on host {told['host']} is gone or stopped: silent for "
                        f"{now - seen[peer][1]:.0f} s, last in stage {told['stage']!r} of step "
                        f"{told['step']}; start the same command again"
                    )
                    return

    def _watch_coordinator(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            asked = self._asked
            if asked is not None and time.monotonic() - asked > self._peer_seconds:
                self._end(
                    f"process 0 (the coordinator) is stopped: silent for "
                    f"{time.monotonic() - asked:.0f} s; start the same command again"
                )
                return

    def _publish(self, count: int, left: str | None = None) -> None:
        assert self._store is not None
        _, stage, step = self._last
        value = {"count": count, "stage": stage, "step": step, "left": left}
        value["host"] = socket.gethostname()
        self._store.key_value_set(
            f"albert_jax/beat/{self._index}", json.dumps(value), allow_overwrite=True
        )

    def _read(self) -> dict[int, str]:
        assert self._store is not None
        found = self._store.key_value_dir_get("albert_jax/beat/")
        table = {int(key.rsplit("/", 1)[-1]): value for key, value in found}
        table.pop(self._index, None)
        return table

    def _laggards(self) -> str:
        """The processes that are behind the others, as a phrase; empty if none or alone."""
        if self._count == 1 or self._store is None:
            return ""
        try:
            steps = {peer: json.loads(value) for peer, value in self._read().items()}
        except Exception:  # noqa: BLE001  # the line without the peers is better than none
            return ""
        steps[self._index] = {"step": self._last[2], "stage": self._last[1]}
        least = min(told["step"] for told in steps.values())
        behind = [
            f"process {peer} in stage {told['stage']!r} of step {told['step']}"
            for peer, told in sorted(steps.items())
            if told["step"] == least
        ]
        if len(behind) == len(steps):
            return "; all processes are at this step"
        return "; behind the others: " + ", ".join(behind)

    def _end(self, line: str) -> None:
        if not self._ended.is_set():
            self._leave(line, LINGER_SECONDS if self._count > 1 and self._index == 0 else 0.0)
            self._ended.set()


def _leave(line: str, linger: float) -> NoReturn:
    """Stacks, the line, exit code 6: without clean-up, which would wait for the hanging peer."""
    stream = sys.__stderr__
    if stream is not None:
        try:
            faulthandler.dump_traceback(file=stream, all_threads=True)
            os.write(stream.fileno(), (line + "\n").encode())
        except (OSError, ValueError):
            pass
    time.sleep(linger)
    os._exit(PeerError.exit_code)
