"""A fine-tuned run measured with the official numbers of its task, beside a majority baseline."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from albert_jax import files
from albert_jax.config import Config, TaskConfig
from albert_jax.errors import AlbertError, CheckpointError
from albert_jax.evaluation.pretraining import table
from albert_jax.inference import depth as depths
from albert_jax.model_io.model import Model, Weights, load
from albert_jax.observe import curves, flops
from albert_jax.observe.metrics import read_rows
from albert_jax.tasks import metrics, prediction
from albert_jax.tasks.families import Family
from albert_jax.tasks.losses import Forward, flat_groups
from albert_jax.tasks.old_registry import TaskKind
from albert_jax.tasks.old_registry import task as registered

if TYPE_CHECKING:
    from albert_jax.inference.early_exit import EarlyExit

ROWS = 32
"""Rows of a batch; fewer examples make one smaller batch."""

RESAMPLED = ("classification", "regression", "choice", "tagging")
"""Families whose scores are cheap enough to be drawn again and again for an interval."""

CHANGES = 256
"""Examples over which the change from pass to pass is averaged."""

SAMPLES = 500
"""Times that the examples are drawn with replacement for an interval."""


def evaluate(
    run_dir: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: Weights = "trained",
    num_layers: Sequence[int] = (),
    most: int | None = None,
    place: str | None = None,
    changes: bool = False,
) -> str:
    """Measures a fine-tuned run on the examples at `place` (None: its task.dev).

    Writes RUN/evaluation.json and RUN/curves.png and returns a table as text: one column per
    depth, and the commonest answer of the training examples. `most` limits how many are read.
    Beside the scores stands forward_flops_per_token in the longest rows; with `changes` also
    what each pass changes (depth.py), over the first examples.

    Raises CheckpointError for a run without checkpoints, DataError for examples that are gone or
    cannot be read. Where the training examples are gone, a line says that their commonest answer
    is missing.
    """
    model = load(run_dir, step=step, weights=weights)
    task, kind = finetuned(model)
    place = place or task.dev
    examples = kind.family.read(place, task, True)[:most]
    majority, missing = _majority(kind.family, task, examples)
    results: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, float]] = {}
    for depth in num_layers or (model.config.num_hidden_layers,):
        found = answers(model, examples, num_layers=depth)
        scores = kind.family.score(examples, found, task.labels)
        first = {name: scores[name] for name in task.metrics if name in scores}
        results[f"{depth} passes"] = first | scores
        results[f"{depth} passes"]["forward_flops_per_token"] = flops.forward_per_token(
            model.config,
            sequence_length=model.run_config.phases[-1].sequence_length,
            predictions=task.canvas if task.name == "generation" else 0,
            num_layers=depth,
        )
        if changes:
            rows = _rows(model, examples[:CHANGES])
            results[f"{depth} passes"] |= depths.changes(
                model.params, model.config, model.run_config.compute, rows, num_layers=depth
            )
        if kind.family.name in RESAMPLED:
            low, high = interval(kind.family, examples, found, task)
            intervals[f"{depth} passes"] = {"low": low, "high": high}
    if majority:
        results["majority"] = majority
    report = {
        "step": model.step,
        "weights": weights,
        "task": task.name,
        "examples": len(examples),
        "file": place,
        "results": results,
        "interval": {"metric": task.metrics[0], "level": 0.95, **intervals},
    }
    files.write(files.join(run_dir, "evaluation.json"), json.dumps(report, indent=1).encode())
    lines = [
        f"{run_dir}: step {model.step}, {task.name}, {len(examples)} examples of {place}",
        table(list(results.items())),
    ]
    lines += [
        f"{task.metrics[0]} at {name}: {bounds['low']:.4f} to {bounds['high']:.4f} "
        "(95 %, examples drawn again)"
        for name, bounds in intervals.items()
    ]
    if missing:
        lines.append(f"without the commonest answer of the training examples: {missing}")
    if read_rows(run_dir):
        lines.append(f"curves: {curves.draw(run_dir)}")
    return "\n".join(lines)


def _majority(
    family: Family, task: TaskConfig, examples: Sequence[Any]
) -> tuple[dict[str, float], str]:
    """(scores of the commonest training answer, why there are none)."""
    if family.baseline is None:
        return {}, ""
    try:
        train = family.read(task.train, task, True)
        return family.baseline(train, examples, task.labels), ""
    except AlbertError as error:  # gone, or no longer what the run was trained on
        return {}, str(error)


def finetuned(model: Model) -> tuple[TaskConfig, TaskKind]:
    """The task of a model; raises CheckpointError if it was not fine-tuned."""
    task = model.run_config.task
    if task is None:
        raise CheckpointError(
            f"{model.source} was not fine-tuned: name the --out of albert-jax finetune"
        )
    return task, registered(task.name)


def featurise(model: Model, examples: Sequence[Any]) -> list[Any]:
    """Features of examples, for `answers`. Raises DataError."""
    task, kind = finetuned(model)
    length = model.run_config.phases[-1].sequence_length
    return prediction.featurise(kind.family, model.vocabulary, examples, task, task.labels, length)


def answers(
    model: Model,
    examples: Sequence[Any],
    *,
    num_layers: int | None = None,
    early: EarlyExit | None = None,
    **options: Any,
) -> list[prediction.Prediction]:
    """Predictions of a fine-tuned model; `options` are those of tasks/prediction.py.

    With `early` they stop when sure (exits.py), and it decides the depth.
    """
    task, kind = finetuned(model)
    return prediction.predict(
        kind.family if early is None else early.family,
        model.vocabulary,
        examples,
        task,
        task.labels,
        outputs(model, kind, num_layers) if early is None else early.outputs,
        length=model.run_config.phases[-1].sequence_length,
        rows=min(ROWS, 1 << (len(examples) - 1).bit_length()),
        **options,
    )


def outputs(model: Model, kind: TaskKind, num_layers: int | None) -> prediction.Outputs:
    """The forward pass on this process' first device; each shape of a batch compiles once."""
    import jax

    program = _program(model.run_config, kind, num_layers)
    return lambda batch: jax.device_get(program(model.params, batch))


@functools.lru_cache(maxsize=8)
def _program(run_config: Config, kind: TaskKind, num_layers: int | None) -> Any:
    """The jitted (params, batch) -> outputs of the recipe's task; one per structure, so that more
    examples of the same shapes compile nothing."""
    import jax

    from albert_jax.model import attention

    task = run_config.task
    assert task is not None
    backend = attention.fastest(run_config, jax.local_devices()[0])
    forward = Forward(run_config.model, run_config.compute, backend, task.pooling)
    return jax.jit(lambda params, batch: kind.outputs(forward, params, batch, task, num_layers))


def _rows(model: Model, examples: Sequence[Any]) -> Iterator[Any]:
    """The examples as plain rows, whatever the task: one per sequence."""
    task, kind = finetuned(model)
    family, length = kind.family, model.run_config.phases[-1].sequence_length
    config = family.for_evaluation(task)
    features = family.features(model.vocabulary, examples, length, config, task.labels)
    generator = np.random.Generator(np.random.Philox(key=0))
    for begin in range(0, len(features), ROWS):
        part = features[begin : begin + ROWS]
        batch: Any = family.batch(model.vocabulary, part, length, ROWS, config, generator)
        yield flat_groups(batch) if batch["input_ids"].ndim == 3 else batch


def interval(
    family: Family, examples: Sequence[Any], found: Sequence[Any], task: TaskConfig
) -> tuple[float, float]:
    """Bounds of the first metric over examples drawn with replacement (95 %)."""

    def score(chosen: np.ndarray) -> float:
        asked, said = ([column[n] for n in chosen] for column in (examples, found))
        return family.score(asked, said, task.labels)[task.metrics[0]]

    drawn = metrics.bootstrap(score, np.arange(len(examples)), samples=SAMPLES)
    return drawn.low, drawn.high
