"""Does steps of a run again, from the checkpoint before them, and compares them with the record.

Data, masks, dropout and depth are functions of (seed, step), so that any step of a run can be
computed again, bit for bit if devices, packages and data are the same. The run's folder is only
read.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from albert_jax import configfile, files
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import Config, ParallelConfig
from albert_jax.errors import CheckpointError, ConfigError, DataError
from albert_jax.model_io import run_record
from albert_jax.observe import environment
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console
from albert_jax.observe.metrics import TIMES, Row, plain, read_rows
from albert_jax.parallel.mesh import check_rows, local_rows, make_mesh
from albert_jax.train.compiled_steps import CompiledSteps, depth_at
from albert_jax.train.report import Report
from albert_jax.train.row_measures import RowMeasures, measure_rows
from albert_jax.train.run import RunFolder, state_of_parent
from albert_jax.train.state import TrainState, abstract_state, init_state
from albert_jax.train.task import Batch, TrainingTask
from albert_jax.tree import flatten

_NOT_COMPARED = TIMES | {"left_out_documents"}
_HARMLESS = ("python", "packages/albert-jax")
"""Parts of the environment that decide no number."""


class RowText(NamedTuple):
    """A row of a batch for a person."""

    lines: list[str]
    """Its size, and its text."""
    origin: list[str]
    """The documents or examples that it came from."""


@dataclass(frozen=True)
class ReopenedRun:
    """The task of a run, set up again from its folder."""

    task: TrainingTask
    facts: Mapping[str, Any]
    """Facts of the record, of the data as it is now."""
    text: Callable[[int, Batch, Sequence[int]], list[RowText]]
    """(step from 0, its global batch, numbers of rows) to these rows as text."""


@dataclass(frozen=True)
class RecordedStep:
    """A step of a run with all that its folder records of it."""

    folder: str
    config: Config
    """The config with which the step was done."""
    record: Mapping[str, Any]
    rows: list[Row]
    """The rows of metrics.jsonl of kind "train"."""
    step: int
    """The step to do again, counted from 1."""
    first: int
    """The first step that is wanted, and the last one."""
    last: int
    start: int | None
    """The checkpoint to start from; None if none precedes the step."""
    mesh: jax.sharding.Mesh
    differences_now: tuple[str, ...]
    """Reasons why the numbers may differ from the record, known before the replay."""

    @property
    def compared(self) -> int | None:
        """The first step from `step` on that the record has a row of."""
        return min((row["step"] for row in self.rows if row["step"] >= self.step), default=None)


@dataclass(frozen=True)
class Replay:
    """Steps that were done again."""

    past: RecordedStep
    start: int
    """Number of steps done before the first one."""
    metrics: dict[int, dict[str, float]]
    """The metrics of each step."""
    rows: list[Row]
    """The rows of metrics.jsonl of these steps, made again."""
    batch: Batch
    """The global batch of the step, and its rows."""
    measures: RowMeasures

    def differences(self) -> dict[int, list[str]]:
        """For each row that the record has, too: the fields that differ from it."""
        recorded = {row["step"]: row for row in self.past.rows}
        return {
            row["step"]: [
                name
                for name in {**recorded[row["step"]], **row}
                if name not in _NOT_COMPARED and row.get(name) != recorded[row["step"]].get(name)
            ]
            for row in self.rows
            if row["step"] in recorded
        }

    def typical_norm(self) -> float | None:
        """The median gradient norm of the 20 nearest other steps that are known."""
        norms = {row["step"]: row.get("grad_norm") for row in self.past.rows}
        norms |= {step: values["grad_norm"] for step, values in self.metrics.items()}
        others = {s: n for s, n in norms.items() if s != self.past.step and n and np.isfinite(n)}
        near = sorted(others, key=lambda step: abs(step - self.past.step))[:20]
        return float(np.median([others[step] for step in near])) if near else None


def look_up(folder: str, step: int, *, around: int = 0) -> RecordedStep:
    """Reads what a run's folder records of a step and of `around` steps before and after it.

    Raises ConfigError for a step that the run did not do, CheckpointError for a folder that is not
    a run or has lost its record, and DataError for a run without rows to compare with.
    """
    paths = RunFolder(folder)
    if files.read(paths.config) is None:
        raise CheckpointError(
            f"{folder} is not a run folder: name the --out of albert-jax pretrain or finetune"
        )
    environment.refuse_seed_offset()
    record, config = run_record.read(folder), configfile.load(paths.config)
    rows = [row for row in read_rows(folder) if row["kind"] == "train"]
    if not rows:
        raise DataError(
            f"{folder} has no training row in metrics.jsonl to compare with: let it log one, or "
            "restore the file from a copy"
        )
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        saved = checkpoints.steps()
        done = max([rows[-1]["step"], *saved])
        # A run that ended early has done steps after its last row.
        if step > min(config.steps, done + config.run.logging_steps):
            raise ConfigError(f"--step {step}: {folder} has done {done} steps: give at most {done}")
        later = [number for number in saved if number >= step]
        if later:
            # Whoever saved the next checkpoint did the steps before it.
            saved_record = checkpoints.record(later[0])
            run_record.check_checkpoint(folder, later[0], saved_record)
            record = record | {
                k: v for k, v in saved_record.items() if k in record and k != "config"
            }
            config = configfile.loads(saved_record["config"], paths.config)
        first = max(1, step - around)
        start = checkpoints.newest_before(first)
    last = min(max(done, step), step + around)
    # They decide no number of the training, and the file of pairs may be gone.
    config = replace(
        config,
        run=replace(config.run, minimal_pairs="", save_at_words=()),
        data=replace(config.data, workers=0),
    )
    config, mesh, differences_now = _on_these_devices(config, record.get("environment", {}))
    return RecordedStep(
        folder, config, record, rows, step, first, last, start, mesh, differences_now
    )


def check_data(past: RecordedStep, facts: Mapping[str, Any], *, allow_other: bool) -> RecordedStep:
    """The recorded step, with a difference for each fact of its data that has changed.

    Raises DataError for one unless `allow_other`.
    """
    lines = []
    for name in run_record.FIXED_FACTS:
        then, now = past.record.get(name), facts.get(name)
        if None not in (then, now) and then != now:
            then, now = run_record.shown_change(then, now)
            lines.append(f"another {name.replace('_', ' ')} ({then}, now {now})")
    if lines and not allow_other:
        raise DataError(
            f"{past.folder}: the run was trained with {lines[0]}: name its own with --data, or add "
            "--other-data True to replay with this one"
        )
    return replace(past, differences_now=(*past.differences_now, *lines))


def replay(past: RecordedStep, run: ReopenedRun) -> Replay:
    """Does the steps again; see `RecordedStep`. Progress goes to stderr.

    Raises CheckpointError for a checkpoint or weights that cannot be read, ConfigError for a step
    of the run's parent, and DataError for damaged data.
    """
    config, task = past.config, run.task
    made = _Rows()
    report = Report(config, task, Clock(), Console(quiet=True), made)  # type: ignore[arg-type]
    state = _first_state(past, task, report)
    start = int(state.step)
    if start >= past.step:
        raise ConfigError(
            f"--step {past.step}: {past.folder} began at step {start} of {past.record['parent']}: "
            "replay the step there"
        )
    last = max(past.last, past.compared or 0)
    console, steps = Console(sys.stderr), CompiledSteps(config, task, past.mesh)
    console.say(f"replays steps {start + 1} to {last} of {past.folder}")
    metrics: dict[int, dict[str, float]] = {}
    measured: tuple[Batch, RowMeasures] | None = None
    with contextlib.ExitStack() as stack:
        batches: Any = None
        for step in range(start, last):
            number, step_in_phase = config.phase_at(step)
            if batches is None or step_in_phase == 0:
                rows = local_rows(past.mesh, config.phases[number].batch_size)
                batches = task.batches(number, step_in_phase, rows)
                stack.enter_context(contextlib.closing(batches))
            batch = next(batches)
            if step + 1 == past.step:
                measured = batch, _measure(config, task, state, batch, step)
            state, values = steps(state, batch, step)
            metrics[step + 1] = {name: float(v) for name, v in jax.device_get(values).items()}
            report.step(step + 1, values, batch)
            console.progress(f"step {step + 1} of {last}  loss {metrics[step + 1]['loss']:.3f}")
    report.flush()
    console.close()
    assert measured is not None
    return Replay(past, start, metrics, made.rows, *measured)


class _Rows:
    """Takes the place of a MetricsWriter: keeps the rows as they would be read."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write(self, row: Mapping[str, object]) -> None:
        self.rows.append(json.loads(json.dumps(plain(row))))


def _first_state(past: RecordedStep, task: TrainingTask, report: Report) -> TrainState:
    shapes = abstract_state(past.config, task.abstract_params, past.mesh)
    if past.start is not None:
        opened = Checkpoints(past.folder, read_only=True)
        with contextlib.closing(opened) as checkpoints:
            restored = checkpoints.restore(shapes, past.start)
        assert restored is not None
        run_record.check_checkpoint(past.folder, restored.step, restored.record)
        report.restore(restored.record["report"])
        return restored.state
    if past.record.get("parent"):
        vocabulary = run_record.load_vocabulary(past.folder)
        return state_of_parent(past.record["parent"], vocabulary)(shapes)
    return init_state(past.config, task.initial_params(), past.mesh)


def _measure(
    config: Config, task: TrainingTask, state: TrainState, batch: Batch, step: int
) -> RowMeasures:
    number, _ = config.phase_at(step)
    params = jax.device_get(state.params)
    return measure_rows(
        task.loss(number), params, batch, config.phases[number],
        seed=config.seed, step=step, num_layers=depth_at(config, step),
        pretraining=config.task is None,
    )  # fmt: skip


def _on_these_devices(
    config: Config, then: Mapping[str, Any]
) -> tuple[Config, jax.sharding.Mesh, tuple[str, ...]]:
    """The config and a mesh for the devices at hand, and what is another environment now.

    Where the mesh of the run does not fit, one device takes the rows of all, in more parts.
    """
    now = environment.describe()
    old, new = flatten(then), flatten({name: now[name] for name in now if name in then})
    differences_now = [
        f"{name.replace('/', ' ')}: {new.get(name)} (was {old.get(name)})"
        for name in sorted({*old, *new})
        if name not in _HARMLESS and old.get(name) != new.get(name)
    ]
    if then.get("devices") in (None, now["devices"]):
        with contextlib.suppress(ConfigError):
            mesh = make_mesh(config.parallel)
            for i, phase in enumerate(config.phases):
                steps = phase.gradient_accumulation_steps
                check_rows(phase.batch_size, steps, mesh, f"phases.{i}")
            return config, mesh, tuple(differences_now)
    shards = max(1, int(then.get("devices") or 1) // config.parallel.tensor)
    phases = tuple(
        replace(phase, gradient_accumulation_steps=phase.gradient_accumulation_steps * shards)
        for phase in config.phases
    )
    config = replace(config, phases=phases, parallel=ParallelConfig())
    return config, make_mesh(config.parallel, jax.local_devices()[:1]), tuple(differences_now)
