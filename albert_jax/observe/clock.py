"""A clock that divides wall time into stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STAGES = ("step", "input_wait", "evaluation", "checkpoint", "compilation", "lost", "other")
"""Stages of a run. "lost" is the time of an earlier process whose steps had to be repeated;
"other" is the time that belongs to no other stage. The share of "step" in the sum is the
goodput."""


class Clock:
    """Attributes every second since its creation to exactly one stage.

    >>> now = iter([0.0, 1.0, 4.0, 5.0]).__next__
    >>> clock = Clock(now=now)
    >>> with clock.stage("step"):
    ...     pass
    >>> seconds = clock.take()
    >>> seconds["step"], seconds["other"]
    (3.0, 2.0)
    """

    def __init__(self, *, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._last = now()
        self._stage = "other"
        self._seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The time inside the block belongs to stage `name`; in nested blocks to the inner one."""
        outer = self._stage
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds that this clock did not measure itself (those of lost steps)."""
        self._seconds[name] += seconds

    def peek(self) -> dict[str, float]:
        """Seconds per stage since the last `take`, without a new start."""
        self._switch(self._stage)
        return dict(self._seconds)

    def take(self) -> dict[str, float]:
        """Seconds per stage since the last call; they add up to the wall time in between."""
        seconds = self.peek()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        return seconds

    def _switch(self, stage: str) -> None:
        now = self._now()
        self._seconds[self._stage] += now - self._last
        self._last, self._stage = now, stage


def duration(seconds: float) -> str:
    """Seconds as a short text: 42s, 3m05s, 2h07m, 4d06h.

    >>> [duration(s) for s in (42, 185, 7620, 367200)]
    ['42s', '3m05s', '2h07m', '4d06h']
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
