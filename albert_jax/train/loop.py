"""The one loop: restore or start, then step, log, evaluate, save and stop, phase by phase.

It knows a task only as a value (task.py), devices only as a mesh, checkpoints only as
`Checkpoints`, and leaves the computation to step.py. Read it from top to bottom.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import jax

from albert_jax.checkpoint.lock import RunLock
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import Config
from albert_jax.errors import ConfigError, NumericsError, Stopped
from albert_jax.model_io import run_record
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console, safe_output
from albert_jax.observe.metrics import MetricsWriter
from albert_jax.observe.profile import Trace
from albert_jax.parallel.jax_internals import process_index
from albert_jax.parallel.mesh import global_batch, local_rows
from albert_jax.train.compiled_steps import CompiledSteps, depth_at
from albert_jax.train.report import Report
from albert_jax.train.state import TrainState, abstract_state, init_state
from albert_jax.train.step import make_eval_step, make_output_step
from albert_jax.train.stop import Stop
from albert_jax.train.task import Batch, Evaluator, TrainingTask
from albert_jax.train.watchdog import Watchdog

EVALUATED = "evaluated"
"""Metric of a checkpoint whose evaluation was done after a stop."""
MAX_SKIPS = 3
"""Steps in a row with a non-finite loss or gradient that end a run."""

log = logging.getLogger(__name__)


@safe_output()
def train(
    config: Config,
    task: TrainingTask,
    run_dir: str,
    mesh: jax.sharding.Mesh,
    *,
    record: Mapping[str, Any],
    lock: RunLock | None,
    parent_state: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """Trains `task` to the end of the config's phases and returns the final state.

    Args:
      config: The run; its rows divide over the mesh.
      task: What is trained.
      run_dir: The run folder.
      mesh: The devices.
      record: Facts that are stored in every checkpoint.
      lock: Checked before each save; only process 0 has it.
      parent_state: Makes the first state of a child run from the abstract state; called if
        nothing is restored.

    Raises:
      Stopped: A signal came; the state is saved.
      NumericsError: MAX_SKIPS steps in a row were not finite.
      CheckpointError: No checkpoint of the folder is complete.
    """
    loop = _Loop(config, task, run_dir, mesh, record, lock)
    with loop.open():
        state = loop.first_state(parent_state)
        num_steps, finished = config.steps - loop.step, loop.finished
        state = loop.run(state)
    if not finished:
        lost = task.left_out_documents
        end = f"; {lost:,} documents of damaged records were left out" if lost else ""
        loop.console.say(f"{run_dir}: done, {num_steps} steps now, {config.steps} in all{end}")
    return state


class _Loop:
    """The resources of a running loop, and the number of steps done."""

    def __init__(
        self,
        config: Config,
        task: TrainingTask,
        run_dir: str,
        mesh: jax.sharding.Mesh,
        record: Mapping[str, Any],
        lock: RunLock | None,
    ) -> None:
        self.config, self.task, self.run_dir, self.mesh = config, task, run_dir, mesh
        self.record, self.lock, self.step = record, lock, 0
        self.evaluation_due = False
        """True if the run was stopped before the evaluation of its newest step was done."""
        is_process_0 = process_index() == 0
        self.clock, self.console = Clock(), Console(quiet=not is_process_0)
        self.checkpoints = Checkpoints(
            run_dir, keep=config.run.save_total_limit, best=task.best, best_mode=task.best_mode
        )
        self.writer = MetricsWriter(run_dir) if is_process_0 else None
        self.report = Report(config, task, self.clock, self.console, self.writer)
        if task.left_out_documents:
            self.report.constants["left_out_documents"] = task.left_out_documents
        self.trace = Trace(run_dir, config.run.profile_steps, writes=is_process_0)
        self.stop, self.watchdog = Stop(), Watchdog(config.run.watchdog_seconds)
        params = task.abstract_params
        self.train_step = CompiledSteps(config, task, mesh)
        self.eval_step = cache(
            lambda number: make_eval_step(mesh, task.evaluation_loss(number), params)
        )
        self.output_step = task.outputs and make_output_step(mesh, task.outputs, params)
        self.compiled: set[Any] = set()
        self.batches = _Batches()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Closes everything on every way out, and finishes the save in flight.

        An error inside outranks the errors of closing, which are then only logged.
        """

        def close(resource: Any, kind: Any, error: Any, traceback: Any) -> None:
            try:
                resource.close()
            except Exception as problem:
                if error is None:
                    raise
                log.warning("%s", problem)

        with self.stop, self.watchdog, ExitStack() as stack:
            for resource in (self.report, self.checkpoints, self.trace):
                stack.push(partial(close, resource))
            # First of all, because workers that build batches may take seconds to end.
            stack.push(partial(close, self.batches))
            yield

    # ---- restore, or start ---------------------------------------------------------------------

    def first_state(self, parent_state: Callable[[TrainState], TrainState] | None) -> TrainState:
        """The restored state, that of the parent, or the initial one."""
        config, run_dir, row_seconds = self.config, self.run_dir, 0.0
        with self.clock.stage("checkpoint"):
            shapes = abstract_state(config, self.task.abstract_params, self.mesh)
            restored = self.checkpoints.restore(shapes)
            if restored is not None:
                run_record.check_checkpoint(run_dir, restored.step, restored.record)
                state = restored.state
                row_seconds = self.report.restore(restored.record["report"])
                due = restored.record.get("evaluation_due", False)
                self.evaluation_due = due and EVALUATED not in restored.metrics
            elif parent_state is not None:
                state = parent_state(shapes)
            else:
                state = init_state(config, self.task.initial_params(), self.mesh)
        self.step = int(state.step)
        if self.finished:
            if restored is None:
                raise ConfigError(
                    f"{run_dir} would begin at step {self.step}, but the config has {config.steps} "
                    "steps: raise phases.N.steps"
                )
            self.console.say(f"{run_dir}: done ({self.step} of {config.steps} steps)")
            return state
        if self.writer is not None:
            # The row that a killed run wrote after this checkpoint already includes the time
            # before it, which must not be counted twice.
            evaluated = not self.evaluation_due
            lost = self.writer.truncate_after(self.step, evaluated=evaluated) - row_seconds
            self.clock.add("lost", max(0.0, lost))
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.task.abstract_params))
        devices = f"{self.mesh.devices.size} x {self.mesh.devices.flat[0].device_kind}"
        facts = [
            f"{size:,} parameters, attention {self.task.attention}, {devices}",
            self.task.summary(config.phase_at(self.step)[0]),
            f"{len(config.phases)} phase{'s' * (len(config.phases) > 1)}, {config.steps:,} steps",
        ]
        self.console.say(f"{run_dir}: {'; '.join(filter(None, facts))}")
        if self.step:
            self.console.say(f"{run_dir}: continues after step {self.step} of {config.steps}")
        return state

    # ---- step by step --------------------------------------------------------------------------

    def run(self, state: TrainState) -> TrainState:
        """Trains to the end of the last phase."""
        config = self.config
        if self.evaluation_due:
            number = config.phase_at(self.step - 1)[0]
            scores = self._evaluate(state, number)
            if scores is None:
                raise self._stopped()
            if self.writer is not None:  # Else its row could be written again, or never.
                self.writer.flush()
            kept = self._of_checkpoint(number, scores) | {EVALUATED: 1.0}
            self.checkpoints.add_metrics(self.step, kept)
            self.evaluation_due = False
        while self.step < config.steps:
            number, step_in_phase = config.phase_at(self.step)
            phase = config.phases[number]
            if self.batches.of_phase != number:
                rows = local_rows(self.mesh, phase.batch_size)
                self.batches.begin(number, self.task.batches(number, step_in_phase, rows))
            self.watchdog.beat("data", self.step)
            with self.clock.stage("input_wait"):
                batch = next(self.batches.stream)
            state = self._train(state, batch, number)

            last, stopping = self.step == config.steps, self.stop()
            evaluates = last or _due(self.step, config.run.eval_steps)
            saves = last or _due(self.step, config.run.save_steps)
            saves = saves or self.step in self.task.milestones
            if evaluates or saves or stopping:
                with self.clock.stage("step"):
                    self.report.flush()
            if self.report.skipped_in_a_row >= MAX_SKIPS:
                newest = self.report.newest_step  # Metrics are read one step late.
                raise NumericsError(
                    f"{self.run_dir}: {MAX_SKIPS} steps in a row up to step {newest} had a loss "
                    "or gradient that is not finite; parameters are as before them: lower "
                    "optimizer.learning_rate or look at the rows of these steps (albert-jax "
                    f"replay {self.run_dir} --step {newest})"
                )
            # A process that was told to stop may have seconds left, so it saves first.
            scores = self._evaluate(state, number) if evaluates and not stopping else None
            self.evaluation_due = evaluates and scores is None
            stopping = stopping or self.evaluation_due
            if saves or stopping:
                self._save(state, self._of_checkpoint(number, scores))
            if stopping:
                self.checkpoints.wait()
                raise self._stopped()
        return state

    @property
    def finished(self) -> bool:
        """True if all steps and evaluations are done."""
        return self.step >= self.config.steps and not self.evaluation_due

    def _stopped(self) -> Stopped:
        return Stopped(
            f"{self.run_dir}: stopped by {self.stop.cause}, saved after step {self.step} of "
            f"{self.config.steps}; start the same command again to go on"
        )

    def _train(self, state: TrainState, batch: Batch, number: int) -> TrainState:
        self.watchdog.beat("step", self.step)
        self.trace.before(self.step + 1)
        program = (number, depth_at(self.config, self.step), batch["input_ids"].shape)
        new = program not in self.compiled
        self.compiled.add(program)
        with self.clock.stage("compilation" if new else "step"):
            state, metrics = self.train_step(state, batch, self.step)
            self.step += 1
            self.report.step(self.step, metrics, batch, compiled=new)
        self.trace.after(self.step, self.report.flush)
        return state

    # ---- evaluate and save ---------------------------------------------------------------------

    def _evaluate(self, state: TrainState, number: int) -> dict[str, float] | None:
        """The scores of the held-out rows; None if the run is to stop."""
        params = state.params if state.ema is None else state.ema

        def apply(program: Any, batch: Batch) -> Any:
            """Applies a program to a batch of held-out rows, of which every process holds all."""
            # The time limit is for each batch, because an evaluation may have thousands.
            self.watchdog.beat("evaluation", self.step)
            if self.stop():
                raise _EvaluationStopped
            batch_size = len(batch["input_ids"])
            rows = local_rows(self.mesh, batch_size)
            local = {name: column[rows] for name, column in batch.items()}
            return jax.device_get(program(params, global_batch(local, self.mesh, batch_size)))

        self.watchdog.beat("evaluation", self.step)
        with self.clock.stage("evaluation"):
            sums, outputs = partial(apply, self.eval_step(number)), partial(apply, self.output_step)
            try:
                scores = self.task.evaluate(number, Evaluator(sums, outputs))
            except _EvaluationStopped:
                return None
            self.report.evaluation(self.step, number, scores)
        return scores

    def _of_checkpoint(self, number: int, scores: dict[str, float] | None) -> dict[str, float]:
        """The scores that a checkpoint keeps: those of the last phase, which can be compared."""
        return scores or {} if number == len(self.config.phases) - 1 else {}

    def _save(self, state: TrainState, scores: dict[str, float]) -> None:
        self.watchdog.beat("checkpoint", self.step)
        with self.clock.stage("checkpoint"):
            if self.lock is not None:
                self.lock.check()
            # Rows before the checkpoint are never written again, so they are written first.
            if self.writer is not None:
                self.writer.flush()
            record = {**self.record, "report": self.report.state()}
            record["evaluation_due"] = self.evaluation_due
            metrics = scores | self.task.milestones.get(self.step, {})
            self.checkpoints.save(self.step, state, record, metrics)


class _EvaluationStopped(Exception):
    """Ends an evaluation of which only a part is done."""


class _Batches:
    """The batches of the phase at hand, which may come from worker processes."""

    of_phase: int | None = None
    stream: Iterator[Batch] = iter(())

    def begin(self, phase: int, stream: Iterator[Batch]) -> None:
        """Takes the batches of another phase."""
        self.close()
        self.of_phase, self.stream = phase, stream

    def close(self) -> None:
        """Ends the workers of a stream that has them."""
        if isinstance(self.stream, Generator):
            self.stream.close()


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
