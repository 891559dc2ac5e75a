"""The one loop: restore or start, then step, log, evaluate, save and stop, phase by phase.

It knows a task only as a value (task.py), devices only as a mesh, checkpoints only as
`Checkpoints`; what a step computes is step.py's business. Read it from top to bottom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from albert_jax.checkpoint.lock import RunLock
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import Config, PhaseConfig
from albert_jax.errors import NumericsError, Stopped
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console
from albert_jax.observe.metrics import MetricsWriter
from albert_jax.observe.profile import Trace
from albert_jax.observe.streams import shield_output
from albert_jax.optim.schedule import learning_rate
from albert_jax.parallel.mesh import check_rows, global_batch, local_rows
from albert_jax.train.report import Report
from albert_jax.train.state import TrainState, abstract_state, init_state
from albert_jax.train.step import make_eval_step, make_output_step, make_train_step
from albert_jax.train.stop import Stop
from albert_jax.train.task import Batch, Network, Task
from albert_jax.train.watchdog import Watchdog

SKIPS = 3
"""Steps in a row with a non-finite loss or gradient that end a run."""


def train(
    config: Config,
    task: Task,
    run_dir: str,
    mesh: jax.sharding.Mesh,
    *,
    record: Mapping[str, Any],
    lock: RunLock | None,
    start: Callable[[TrainState], TrainState] | None = None,
) -> TrainState:
    """Trains `task` to the end of the config's phases and returns the final state.

    `record` is stored in every checkpoint. `lock` is asked before each save whether the folder is
    still ours (None: another process asks). `start` gives the first state of a run that begins
    as another run's child: it is called with the abstract state if nothing is restored.

    Raises Stopped after a signal (the state is saved), NumericsError after SKIPS bad steps in a
    row, CheckpointError when no checkpoint of the folder is whole, ConfigError when the rows of
    a phase do not divide over the mesh.
    """
    # ---- what is fixed before the first step ---------------------------------------------------
    for number, phase in enumerate(config.phases):
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, f"phases.{number}")
    process, processes = jax.process_index(), jax.process_count()
    shield_output()
    clock, console = Clock(), Console(quiet=process > 0)
    checkpoints = Checkpoints(
        run_dir,
        keep=config.run.save_total_limit,
        best=task.best,
        best_mode=task.best_mode,
        process_index=process,
        process_count=processes,
    )
    writer = MetricsWriter(run_dir) if process == 0 else None
    report = Report(config, task, clock, console, writer)
    trace = Trace(run_dir, config.run.profile_steps if process == 0 else ())
    programs = lru_cache(maxsize=None)(
        lambda phase, num_layers: make_train_step(
            config, phase, mesh, task.loss, params=task.abstract_params, num_layers=num_layers
        )
    )
    sums = make_eval_step(config, mesh, task.evaluation_loss, params=task.abstract_params)
    outputs = task.outputs and make_output_step(mesh, task.outputs, params=task.abstract_params)
    compiled: set[Any] = set()

    stop = Stop(processes)
    watchdog = Watchdog(config.run.watchdog_seconds, process_index=process, process_count=processes)
    with stop, watchdog:
        # ---- restore, or start -----------------------------------------------------------------
        with clock.stage("checkpoint"):
            params, begun = task.abstract_params, 0.0
            shapes = abstract_state(config, params, mesh)
            restored = checkpoints.restore(shapes)
            if restored is not None:
                state = restored.state
                begun = report.restore(restored.record["report"])
            elif start is not None:
                state = start(shapes)
            else:
                state = init_state(config, task.initial_params(), mesh)
        step = first = int(state.step)
        if writer is not None:
            # The row that a killed run has written since holds the seconds before the step too.
            clock.add("lost", max(0.0, writer.truncate_after(step) - begun))
        if step >= config.steps:
            console.say(f"{run_dir}: done ({step} of {config.steps} steps)")
            checkpoints.close()
            return state
        if step:
            console.say(f"{run_dir}: continues after step {step} of {config.steps}")

        # ---- step by step ----------------------------------------------------------------------
        batches = None
        while step < config.steps:
            number, inside = config.phase_at(step)
            phase = config.phases[number]
            if batches is None or inside == 0:
                batches = task.batches(number, inside, local_rows(mesh, phase.batch_size))
            watchdog.beat("data", step)
            with clock.stage("input_wait"):
                batch = next(batches)
            watchdog.beat("step", step)
            trace.before(step + 1)
            num_layers = depth_at(config, phase, step)
            shape = (number, num_layers, batch["input_ids"].shape)
            with clock.stage("step" if shape in compiled else "compilation"):
                compiled.add(shape)
                state, metrics = programs(phase, num_layers)(
                    state,
                    global_batch(batch, mesh, phase.batch_size),
                    {
                        "learning_rate": np.float32(learning_rate(config, step)),
                        "seed": np.int32(config.seed),
                    },
                )
                step += 1
                report.step(step, metrics, batch)
            trace.after(step, report.flush)

            # ---- evaluate, save, stop ----------------------------------------------------------
            last = step == config.steps
            stopping = stop(step)
            evaluates = last or _due(step, config.run.eval_steps)
            saves = last or stopping or _due(step, config.run.save_steps)
            if evaluates or saves:
                with clock.stage("step"):
                    report.flush()
            if report.skipped_in_a_row >= SKIPS:
                checkpoints.close()
                raise NumericsError(
                    f"{run_dir}: {SKIPS} steps in a row up to step {step} had a loss or gradient "
                    "that is not finite; parameters are as before them: lower "
                    "optimizer.learning_rate or look at the data of these steps (of pretraining: "
                    f"albert-jax data show DATA --config {run_dir} --phase {number} "
                    f"--step {inside} --seed {config.seed})"
                )
            numbers: dict[str, float] = {}
            if evaluates and not stopping:
                # The time limit is for each batch: an evaluation may have thousands.
                beat = partial(watchdog.beat, "evaluation", step)
                beat()
                with clock.stage("evaluation"):
                    chosen = state.params if state.ema is None else state.ema
                    applied = partial(_applied, params=chosen, mesh=mesh, before=beat)
                    network = Network(partial(applied, sums), partial(applied, outputs))
                    numbers = task.evaluate(number, network)
                    report.evaluation(step, number, numbers)
            if saves:
                watchdog.beat("checkpoint", step)
                final = number == len(config.phases) - 1
                with clock.stage("checkpoint"):
                    if lock is not None:
                        lock.check()
                    report.store()
                    checkpoints.save(
                        step,
                        state,
                        {**record, "report": report.state()},
                        numbers if final else None,
                    )
            if stopping and not last:
                trace.close()
                checkpoints.close()
                report.close()
                raise Stopped(
                    f"{run_dir}: stopped by {stop.cause}, saved after step {step} of "
                    f"{config.steps}; start the same command again to go on"
                )
        trace.close()
        checkpoints.close()
    report.close()
    console.say(f"{run_dir}: done, {step - first} steps now, {step} in all")
    return state


def depth_at(config: Config, phase: PhaseConfig, step: int) -> int | None:
    """Depth of a step: drawn from the phase's depths by (seed, step); None: the model's own."""
    if not phase.depths:
        return None
    digest = hashlib.sha256(f"passes:{config.seed}:{step}".encode()).digest()
    return phase.depths[int.from_bytes(digest[:8], "little") % len(phase.depths)]


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _applied(
    program: Any,
    rows: Batch,
    *,
    params: Any,
    mesh: jax.sharding.Mesh,
    before: Callable[[], None],
) -> Any:
    """What the program finds in one batch of held-out rows, of which every process holds all;
    `before` is called first."""
    before()
    count = len(rows["input_ids"])
    mine = local_rows(mesh, count)
    local = {name: column[mine] for name, column in rows.items()}
    return jax.device_get(program(params, global_batch(local, mesh, count)))
