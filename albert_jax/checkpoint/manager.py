"""Saving and restoring the state of a run: Orbax's CheckpointManager behind one module.

A save is asynchronous: the caller waits for the copy to host memory only. A thread of ours
then waits for Orbax's commit, takes the digests and writes manifest and note
(``checkpoint/digest.py``); before that the step does not count. Restoring compares every byte
with its digest first, then every leaf's name, shape and type with what is asked for (Orbax
would cast in silence), then refuses non-finite numbers.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import orbax.checkpoint as ocp

from albert_jax import files
from albert_jax.checkpoint import digest, folder
from albert_jax.checkpoint.digest import Layout
from albert_jax.checkpoint.leaves import (
    describe,
    differences,
    finite_flags,
    nested,
    not_finite,
    restore_args,
    unflatten_like,
)
from albert_jax.errors import AlbertError, CheckpointError, NumericsError, StorageError
from albert_jax.parallel import agreement as cluster

log = logging.getLogger(__name__)

_REASONS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
)

SHARE_TIMEOUT_SECONDS = 600.0
"""How long process 0 waits for the digests of the others, and they for its note."""


class Restored(NamedTuple):
    """What :meth:`Checkpoints.restore` returns."""

    step: int
    state: Any
    record: dict[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, without its own question to the preemption service.

    It would ask from the finalizing thread of process 0, with the number of a step that is
    already past: the service would take that for where the process is, and agree on a step
    that process 0 never reaches again. The loop alone asks (``train/stop.py``).
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      run_dir: the run's folder, local or in a bucket.
      keep: how many of the newest steps stay; at least 1.
      best: name of the number (of those given to :meth:`save`) whose best step stays too.
      best_mode: whether the lowest or the highest number is the best.
      process_index: this process, 0 to process_count - 1. Process 0 alone sorts the folder,
        writes manifests and deletes; all processes make the same calls in the same order.
      process_count: processes of the run.
      read_only: for evaluation and export: nothing is moved, written or locked, so it may look
        at a folder in which a run is at work.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        keep: int,
        best: str | None,
        best_mode: Literal["min", "max"] = "min",
        process_index: int = 0,
        process_count: int = 1,
        read_only: bool = False,
    ) -> None:
        self._layout = Layout(run_dir)
        self._keep = max(1, keep)
        self._best = best
        self._best_mode = best_mode
        self._index = process_index
        self._count = process_count
        self._read_only = read_only
        self._manager: _Manager | None = None
        self._sorted = False
        self._newest: int | None = None
        self._thread: threading.Thread | None = None
        self._saving: int | None = None
        self._error: Exception | None = None
        self._failures = 0
        self._metrics: dict[int, dict[str, float]] = {}

    def restore(
        self, abstract_state: Any, step: int | None = None, *, partial: bool = False
    ) -> Restored | None:
        """The newest whole step (or one asked for), laid out as `abstract_state` says.

        Args:
          abstract_state: a pytree of jax.ShapeDtypeStruct or arrays; the sharding of each leaf
            decides where it goes, on any number of devices or processes (without one: the
            first device).
          step: a certain step; it is refused, not replaced, if it is damaged.
          partial: `abstract_state` may lack leaves that were saved (parameters alone).

        Returns:
          None if nothing was ever saved here (not if `read_only`).

        Raises:
          CheckpointError: no step is whole; or a leaf is missing, unknown, of another shape or
            type, or not finite; the line names it.
          StorageError: the folder cannot be read or written.
        """
        chosen = self._choose(step)
        if chosen is None:
            return None
        saved = self._read_record(chosen)
        problems = differences(saved["leaves"], describe(abstract_state), partial=partial)
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise CheckpointError(
                f"{self._layout.step(chosen)} holds another model or optimizer: "
                f"{problems[0]}{more}; use the config it was saved with"
            )
        state = self._read_state(chosen, abstract_state, partial)
        bad = not_finite(finite_flags(state))
        if bad:
            raise CheckpointError(
                f"{self._layout.step(chosen)}: {bad[0]} holds non-finite numbers, so it was not "
                "written by this program; choose another step"
            )
        return Restored(chosen, state, saved["record"])

    def save(
        self,
        step: int,
        state: Any,
        record: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Begins to save a step and returns when `state` may be changed or donated.

        Waits for the save before it, and reports how that one went: one failure is told in a
        line (this save is the retry), the second in a row is raised. A step that is already
        saved is left alone.

        Args:
          step: steps done; above all steps saved before.
          state: pytree of finite jax or numpy arrays.
          record: JSON object that comes back from :meth:`restore`, under the same digests.
          metrics: finite numbers of this step; `best` is looked up here.

        Raises:
          StorageError: two saves in a row failed; the line names the last whole step.
          NumericsError: the state saved before held a non-finite number (it was not kept).
          CheckpointError: a later step lies in the folder already.
        """
        if self._read_only:
            raise CheckpointError(f"{self._layout.run_dir}: opened for reading, nothing is saved")
        self._sort_once()
        self._join()
        self._report(fatal=self._failures > 1 or self._count > 1)
        if self._newest is not None and step <= self._newest:
            if step == self._newest:
                return
            raise CheckpointError(
                f"{self._layout.run_dir}: step {step} cannot be saved after step {self._newest}; "
                "a run that goes back needs another --out"
            )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nested(state)),
            record=ocp.args.JsonSave({"leaves": describe(state), "record": record}),
        )
        flags = finite_flags(state)
        self._saving = step
        try:
            self._open().save(step, args=items, force=True)
        except Exception as error:
            self._fail(step, error)
            self._report(fatal=self._failures > 1 or self._count > 1)
            return
        self._thread = threading.Thread(
            target=self._finish,
            args=(step, flags, dict(metrics or {})),
            name=f"checkpoint-{step}",
        )
        self._thread.start()

    def wait(self) -> None:
        """Returns when the last save is whole.

        Raises:
          StorageError: it failed; the line names the last whole step.
          NumericsError: its state held a non-finite number.
        """
        self._join()
        self._report(fatal=True)

    def close(self) -> None:
        """Waits for the last save, reports as :meth:`wait` does and frees Orbax's threads."""
        try:
            self.wait()
        finally:
            self._drop_manager()

    def steps(self) -> list[int]:
        """Whole steps in the folder, ascending (digests are compared when one is restored)."""
        present = set(digest.numbers(self._layout.checkpoints))
        return [step for step in self._layout.noted_steps() if step in present]

    def best_step(self) -> int | None:
        """The step whose number named `best` is the best; None if no step has that number."""
        if self._best is None:
            return None
        scores = {}
        for step in self.steps():
            if step not in self._metrics:
                self._metrics[step] = digest.metrics_of(self._layout, step)
            if self._best in self._metrics[step]:
                scores[step] = self._metrics[step][self._best]
        if not scores:
            return None
        sign = 1 if self._best_mode == "min" else -1
        return min(scores, key=lambda step: (sign * scores[step], step))

    # Opening ------------------------------------------------------------------------------

    def _choose(self, step: int | None) -> int | None:
        if step is None and not self._read_only:
            self._sort_once()
            return self._newest
        if self._saving is not None:
            self._join()

        def look() -> int:
            if step is None:
                return folder.newest_whole(self._layout)
            folder.demand_whole(self._layout, step)
            return step

        if not self._read_only:
            self._sort_once()
        return self._on_first("choose", look)

    def _sort_once(self) -> None:
        if self._sorted:
            return

        def work() -> int | None:
            files.make_folder(self._layout.checkpoints)
            return folder.sort(self._layout)

        self._newest = self._on_first("sort", work)
        self._sorted = True

    def _on_first(self, name: str, work: Callable[[], Any]) -> Any:
        return cluster.on_first(name, work, self._index, self._count)

    def _open(self) -> _Manager:
        if self._manager is None:
            handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
            # Weights hardly compress: zstd would cost 6 s of xxlarge's 9 and save an eighth.
            arrays = ocp.PyTreeCheckpointHandler(use_compression=False)
            handlers.add("state", ocp.args.PyTreeSave, arrays)
            handlers.add("state", ocp.args.PyTreeRestore, arrays)
            record = ocp.JsonCheckpointHandler()
            handlers.add("record", ocp.args.JsonSave, record)
            handlers.add("record", ocp.args.JsonRestore, record)
            options = ocp.CheckpointManagerOptions(
                create=False,
                read_only=self._read_only,
                save_root_metadata=False,
                # Retention is ours: Orbax would delete the last whole step before the new one
                # has its manifest.
                max_to_keep=None,
            )
            self._manager = _Manager(
                _absolute(self._layout.checkpoints), options=options, handler_registry=handlers
            )
        return self._manager

    def _drop_manager(self) -> None:
        manager, self._manager = self._manager, None
        if manager is None:
            return
        try:
            manager.close()
        except Exception as error:
            # It repeats the failure of a save that has been reported already.
            log.debug("closing the manager: %s", error)

    # Reading ------------------------------------------------------------------------------

    def _read_record(self, step: int) -> dict[str, Any]:
        saved = self._orbax(step, record=ocp.args.JsonRestore())["record"]
        if not isinstance(saved, dict) or not {"leaves", "record"} <= saved.keys():
            raise CheckpointError(f"{self._layout.step(step)}: its record is not ours")
        return saved

    def _read_state(self, step: int, abstract_state: Any, partial: bool) -> Any:
        tree = nested(abstract_state)
        arguments = ocp.args.PyTreeRestore(
            item=tree, restore_args=restore_args(tree), partial_restore=partial
        )
        return unflatten_like(abstract_state, self._orbax(step, state=arguments)["state"])

    def _orbax(self, step: int, **items: Any) -> Any:
        try:
            return self._open().restore(step, args=ocp.args.Composite(**items))
        except OSError as error:
            raise files.storage_error(self._layout.step(step), error) from error
        except Exception as error:
            raise CheckpointError(
                f"{self._layout.step(step)}: Orbax cannot read it ({_first_line(error)}); "
                "choose another step"
            ) from error

    # Saving -------------------------------------------------------------------------------

    def _finish(self, step: int, flags: Any, metrics: dict[str, float]) -> None:
        """Runs in a thread: from Orbax's commit to the note, then retention."""
        try:
            assert self._manager is not None
            self._manager.wait_until_finished()
            self._seal(step, flags, metrics)
            self._failures = 0
            self._newest = step
        except Exception as error:
            self._fail(step, error)
        finally:
            self._saving = None

    def _seal(self, step: int, flags: Any, metrics: dict[str, float]) -> None:
        layout = self._layout
        bad = not_finite(flags)
        if bad:
            if self._index == 0:
                files.delete_tree(layout.step(step))
            raise NumericsError(
                f"{bad[0]} was not finite at step {step}: it was not saved; the newest "
                f"checkpoint is step {self._newest or 0}"
            )
        if not files.is_folder(layout.step(step)):
            raise StorageError(f"{layout.step(step)}: Orbax did not commit it")
        if self._count > 1:
            digest.write_share(layout, step, self._index, self._count)
        if self._index > 0:
            cluster.wait_for(layout.note(step), SHARE_TIMEOUT_SECONDS)
            return
        if self._count > 1:
            table = digest.collect_shares(layout, step, self._count, SHARE_TIMEOUT_SECONDS)
        else:
            table = digest.digests(layout.step(step), sync=True)
        digest.seal(layout, step, table, metrics)
        self._retain()

    def _retain(self) -> None:
        steps = self.steps()
        best = self.best_step()
        for step in steps[: -self._keep]:
            if step != best:
                folder.retire(self._layout, step)

    def _fail(self, step: int, error: Exception) -> None:
        """Remembers why a save failed and removes its remains, so that they fill no disk."""
        self._failures += 1
        last = self._newest
        whole = "no step is saved yet" if last is None else f"the last whole step is {last}"
        cause = _storage_cause(error)
        if cause is None:
            self._error = error  # non-finite numbers, or a bug: not to be told as a full disk
        else:
            self._error = StorageError(
                f"{self._layout.step(step)} could not be saved: {cause}; {whole}; free space or "
                "mend the folder, then start the same command again"
            )
        if self._count > 1:
            return  # the others are inside Orbax's barriers: this process can only leave
        self._drop_manager()
        try:
            folder.remove_uncommitted(self._layout)
            if files.read(self._layout.manifest(step)) is None:
                files.delete_tree(self._layout.step(step))
        except AlbertError as problem:
            log.debug("removing the remains of step %d: %s", step, problem)

    def _report(self, *, fatal: bool) -> None:
        error, self._error = self._error, None
        if error is None:
            return
        if fatal or not isinstance(error, StorageError):
            raise error
        log.warning("%s (training goes on, the next save tries again)", error)

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()


def _absolute(path: str) -> str:
    return path if files.is_bucket(path) else os.path.abspath(path)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _storage_cause(error: BaseException) -> str | None:
    """The storage's own reason in a few words; None if the error is of another kind.

    TensorStore and the pools of threads between wrap the operating system's error in their own,
    so its text is looked for along the whole chain.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, StorageError):
            return str(link)
        text = " ".join(str(link).split())
        for known in _REASONS:
            if known.lower() in text.lower():
                return known
        if isinstance(link, OSError):
            return _first_line(link)
        link = link.__cause__ or link.__context__
    return None
