"""Saving and restoring the state of a run.

A save is asynchronous: the caller waits for the copy to host memory only. A thread then waits for
Orbax's commit, takes the digests and writes manifest and marker (``manifest.py``); before that
the step does not count. Restoring compares every byte with its digest first, then every leaf's
name, shape and type with the requested ones (Orbax would cast silently), then refuses non-finite
numbers.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from albert_jax import files
from albert_jax.checkpoint import manifest, recovery
from albert_jax.checkpoint.leaves import describe, differences, finite_flags, not_finite
from albert_jax.checkpoint.manifest import Layout
from albert_jax.checkpoint.orbax_store import OrbaxStore, storage_reason
from albert_jax.errors import AlbertError, CheckpointError, NumericsError, StorageError
from albert_jax.parallel import agreement
from albert_jax.parallel.jax_internals import process_count
from albert_jax.tree import unflatten

log = logging.getLogger(__name__)

WORDS_MILESTONE = "words_milestone"
"""The metric of a step that is never deleted: the number of words at which it was to be saved."""

CLEAN_UP_TRIES, CLEAN_UP_SECONDS = 10, 0.1
"""Attempts to remove the files of a failed save, and the pause after each."""


class Restored(NamedTuple):
    """A restored step: its number, the state, and the record and metrics saved with it."""

    step: int
    state: Any
    record: dict[str, Any]
    metrics: dict[str, float]


class Checkpoints:
    """The checkpoints of one run folder, local or in a bucket.

    All processes of a run make the same calls in the same order. Process 0 alone recovers the
    folder, writes manifests and deletes.

    Args:
      run_dir: The run's folder.
      keep: How many of the newest steps are kept; at least 1.
      best: The metric (of those given to :meth:`save`) whose best step is kept too.
      best_mode: Whether the lowest or the highest value is the best.
      read_only: For evaluation and export, by each process alone. Nothing is moved, written or
        locked, so it may read a folder in which a run is at work.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        keep: int = 1,
        best: str | None = None,
        best_mode: Literal["min", "max"] = "min",
        read_only: bool = False,
    ) -> None:
        self._layout = Layout(run_dir)
        self._store = OrbaxStore(self._layout, read_only=read_only)
        self._keep, self._best, self._best_mode = max(1, keep), best, best_mode
        self._count = process_count()
        self._read_only = read_only
        self._recovered = False
        self._newest: int | None = None
        self._saving: threading.Thread | None = None
        self._error: Exception | None = None
        self._failures_in_a_row = 0

    # ---- restoring -------------------------------------------------------------------------------

    def restore(
        self, abstract_state: Any, step: int | None = None, *, partial: bool = False
    ) -> Restored | None:
        """Restores the newest complete step, or the given one, as `abstract_state` is laid out.

        Args:
          abstract_state: A pytree of jax.ShapeDtypeStruct or arrays. The sharding of each leaf
            decides where it goes, on any number of devices or processes; a leaf without one goes
            to the first device.
          step: A certain step, which is refused and not replaced if it is damaged.
          partial: Whether `abstract_state` may lack leaves that were saved.

        Returns:
          None if nothing was ever saved here (not if `read_only`).

        Raises:
          CheckpointError: No step is complete, or a leaf is missing, unknown, of another shape or
            type, or not finite; the line names it.
          StorageError: The folder cannot be read or written.
        """
        chosen = self._choose(step)
        if chosen is None:
            return None
        path = self._layout.step(chosen)
        saved = self._store.restore_record(chosen)
        problems = differences(saved["leaves"], describe(abstract_state), partial=partial)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise CheckpointError(
                f"{path} holds another model or optimizer: {problems[0]}{more}; use the config it "
                "was saved with"
            )
        state = self._store.restore_state(chosen, abstract_state, partial=partial)
        bad = not_finite(finite_flags(state))
        if bad:
            raise CheckpointError(
                f"{path}: {bad[0]} holds non-finite numbers, so it was not written by this "
                "program; move it away, and the step before it is taken"
            )
        return Restored(chosen, state, saved["record"], self.metrics(chosen))

    def shapes(self, step: int) -> dict[str, Any]:
        """All of what a step holds as shapes, for `restore`, by the names of its leaves.

        Raises CheckpointError if its description of them cannot be read.
        """
        described = self._store.restore_record(step)["leaves"]
        return unflatten(
            {
                name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
                for name, (dtype, shape) in described.items()
            }
        )

    def _choose(self, step: int | None) -> int | None:
        if not self._read_only:
            self._recover_once()
        elif step is None:
            return recovery.newest_complete(self._layout)
        if step is None:
            return self._newest
        recovery.require_complete(self._layout, step)
        return step

    def _recover_once(self) -> None:
        def recover() -> int | None:
            files.make_folder(self._layout.checkpoints)
            return recovery.recover(self._layout)

        if not self._recovered:
            self._newest = agreement.on_process_0("recover", recover)
            self._recovered = True

    def best_step(self) -> int | None:
        """The step with the best value of the metric `best`; None if no step has a value."""
        if self._best is None:
            return None
        metrics = {step: manifest.metrics_of(self._layout, step) for step in self.steps()}
        scores = {step: row[self._best] for step, row in metrics.items() if self._best in row}
        sign = 1 if self._best_mode == "min" else -1
        return min(scores, key=lambda step: (sign * scores[step], step), default=None)

    def steps(self) -> list[int]:
        """The saved steps, ascending (digests are compared when a step is restored)."""
        return self._layout.saved_steps()

    def newest_before(self, step: int) -> int | None:
        """The newest complete step below `step`, for readers; None if there is none."""
        return recovery.newest_before(self._layout, step)

    def record(self, step: int) -> dict[str, Any]:
        """The record that was saved with a step. Raises CheckpointError where it is damaged."""
        recovery.require_complete(self._layout, step)
        return self._store.restore_record(step)["record"]

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that a step was saved with; empty if its manifest is unreadable."""
        return manifest.metrics_of(self._layout, step)

    # ---- saving ----------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        state: Any,
        record: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts to save a step and returns as soon as `state` may be changed or donated.

        It first waits for the previous save. If that one failed, a line says so and this save is
        the retry; the second failure in a row is raised. With several processes the first is.

        Args:
          step: Number of steps done, larger than that of any earlier save.
          state: Pytree of finite arrays.
          record: JSON object that :meth:`restore` returns, covered by the same digests.
          metrics: Finite numbers of this step, one of which may be `best`; with WORDS_MILESTONE
            among them the step is kept for good.

        Raises:
          StorageError: Two saves in a row failed; the line names the last complete step.
          NumericsError: The state saved before held a non-finite number and was not kept.
          CheckpointError: The folder has this step or a later one already.
        """
        self._recover_once()
        self._join()
        if self._newest is not None and step <= self._newest:
            raise CheckpointError(
                f"{self._layout.run_dir}: step {step} cannot be saved after step {self._newest}; "
                "a run that goes back needs another --out"
            )
        flags, key = finite_flags(state), agreement.new_key("checkpoint")
        try:
            self._store.save(step, state, record)
        except Exception as error:
            self._clean_up_failed_save(step, error)
            if not self._next_save_retries(self._error):
                self._join()
            return  # Else the next save logs the error, or `wait` raises it.
        self._saving = threading.Thread(
            target=self._finish, args=(step, flags, metrics or {}, key), name=f"checkpoint-{step}"
        )
        self._saving.start()

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Adds metrics to those of the newest step, whose evaluation ended after its save.

        Raises StorageError if they cannot be written.
        """
        self.wait()
        agreement.on_process_0("metrics", lambda: manifest.add_metrics(self._layout, step, metrics))

    def wait(self) -> None:
        """Waits until the last save is complete.

        Raises:
          StorageError: It failed; the line names the last complete step.
          NumericsError: Its state held a non-finite number.
        """
        self._join(may_retry=False)

    def close(self) -> None:
        """Waits for the last save, reports as :meth:`wait` does and frees Orbax's threads."""
        try:
            self.wait()
        finally:
            self._store.close()

    def _join(self, *, may_retry: bool = True) -> None:
        """Waits for the saving thread, and raises its error or logs it if the next save retries."""
        thread, self._saving = self._saving, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is None:
            return
        if not (may_retry and self._next_save_retries(error)):
            raise error
        log.warning("%s (training continues, the next save tries again)", error)

    def _next_save_retries(self, error: Exception | None) -> bool:
        first = self._failures_in_a_row == 1 and self._count == 1
        return first and isinstance(error, StorageError)

    def _finish(self, step: int, flags: Any, metrics: dict[str, float], key: str) -> None:
        """Runs in a thread, from Orbax's commit to the marker and the deletion of old steps."""
        try:
            self._store.wait()
            self._complete(step, flags, metrics, key)
            self._failures_in_a_row, self._newest = 0, step
        except Exception as error:
            self._clean_up_failed_save(step, error)

    def _complete(self, step: int, flags: Any, metrics: dict[str, float], key: str) -> None:
        folder, bad = self._layout.step(step), not_finite(flags)

        def complete() -> None:
            if bad:
                files.delete_tree(folder)
                raise NumericsError(
                    f"{bad[0]} was not finite at step {step}: it was not saved; the newest "
                    f"checkpoint is step {self._newest or 0}"
                )
            if not files.is_folder(folder):
                raise StorageError(f"{folder}: Orbax did not commit it")
            manifest.complete(self._layout, step, metrics)
            try:
                self._delete_old()
            except StorageError as error:  # The step is complete, so the save did not fail.
                log.warning("%s (an old checkpoint stays until the next save)", error)

        agreement.on_process_0("checkpoint", complete, key)

    def _delete_old(self) -> None:
        """Deletes the steps that are neither among the newest nor the best nor a milestone."""
        best = self.best_step()
        for old in self.steps()[: -self._keep]:
            if old != best and WORDS_MILESTONE not in manifest.metrics_of(self._layout, old):
                manifest.delete(self._layout, old)

    def _clean_up_failed_save(self, step: int, error: Exception) -> None:
        """Keeps the error for the next call, and removes the files so that they fill no disk."""
        self._failures_in_a_row += 1
        self._error = error  # Perhaps non-finite numbers, another process, or a bug.
        if reason := storage_reason(error):
            newest = self._newest
            last = f"the last complete step is {newest}" if newest else "no step is saved yet"
            self._error = StorageError(
                f"{self._layout.step(step)} could not be saved: {reason}; {last}; free space or "
                "fix the folder, then start the same command again"
            )
        if self._count > 1:
            return  # The other processes wait inside Orbax's barriers, so this one can only leave.
        self._store.close()
        for _ in range(CLEAN_UP_TRIES):
            try:
                if files.read(self._layout.manifest(step)) is None:
                    files.delete_tree(self._layout.step(step))
                if not recovery.remove_uncommitted(self._layout):
                    return
            except AlbertError as problem:
                log.debug("removing the files of step %d: %s", step, problem)
            time.sleep(CLEAN_UP_SECONDS)  # Threads of Orbax may still write there.
