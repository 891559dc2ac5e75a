"""Doing the items of a step: in this process, in a pool of processes, or on Apache Beam."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from albert_jax import files
from albert_jax.data.prepare import beam
from albert_jax.data.prepare.plan import Plan
from albert_jax.errors import PeerError

LOG_AFTER_SECONDS = 30.0
"""Seconds after which a shard says what it waits for."""
TIMEOUT_SECONDS = 86_400.0
"""Seconds that a shard waits for another one to complete an item."""


class Executor:
    """Does the items of a step that are not complete and belong to this shard."""

    def __init__(self, plan: Plan, log: Callable[[str], None]) -> None:
        self.plan, self.log = plan, log
        self.index, self.count = plan.options.shard
        items = range(self.index, len(plan.parts), self.count)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.workers = min(plan.options.workers or cores or 1, len(items))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        step: str,
        function: Callable[..., None],
        items: list[tuple[Any, ...]],
        what: str,
        *,
        wait: bool = True,
    ) -> None:
        """Calls `function(plan, *item)` for each item of this shard that is not complete.

        Args:
          step: Name of the step in the names of records.
          function: The step.
          items: The items of all shards. The first element of each is its number.
          what: Beginning of progress lines.
          wait: Whether to wait until the other shards have done theirs.

        Raises:
          PeerError: A worker was killed, or another shard completed nothing for a long time.
        """
        done = set(files.names(self.plan.work))
        left = [
            item
            for item in items
            if item[0] % self.count == self.index and f"{step}-{item[0]:05d}.json" not in done
        ]
        function = functools.partial(function, self.plan)
        if left and self.plan.options.beam:
            beam.run(self.plan.options.beam, function, left, files.join(self.plan.work, "failed"))
            self._log_progress(what, len(left), len(left))
        elif len(left) < 2 or self.workers < 2:
            for number, item in enumerate(left, 1):
                function(*item)
                self._log_progress(what, number, len(left))
        else:
            self._run_in_pool(function, left, what)
        if wait:
            self._wait({f"{step}-{item[0]:05d}.json" for item in items})

    def _wait(self, records: set[str]) -> None:
        num_missing, since = len(records) + 1, time.monotonic()
        told = False
        while missing := records - set(files.names(self.plan.work)):
            if len(missing) < num_missing:
                num_missing, since = len(missing), time.monotonic()
            number = int(min(missing).partition("-")[2][:5])
            where = f"part {number}, which shard {number % self.count}/{self.count} does"
            if time.monotonic() - since > TIMEOUT_SECONDS:
                raise PeerError(
                    f"no news for {TIMEOUT_SECONDS:.0f} s of {where}: start that shard again"
                )
            if not told and time.monotonic() - since > LOG_AFTER_SECONDS:
                self.log(f"waiting for {where}: if it has ended, start it again")
                told = True
            time.sleep(0.2 if not told else 5.0)

    def _run_in_pool(
        self, function: Callable[..., None], items: list[tuple[Any, ...]], what: str
    ) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context)
        futures = [self._pool.submit(function, *item) for item in items]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                future.result()
                self._log_progress(what, number, len(items))
        except BrokenProcessPool as error:
            raise PeerError(
                "a worker process was killed, perhaps for lack of memory: run the same command "
                "again, with fewer --workers"
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _log_progress(self, what: str, done: int, count: int) -> None:
        if count > 1:
            self.log(f"{what}: {done} of {count} parts")
