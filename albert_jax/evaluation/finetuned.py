"""A fine-tuned model measured with the scores of its task, beside a majority baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.errors import AlbertError
from albert_jax.inference.layer_similarity import mean_cosines
from albert_jax.inference.predict import BATCH_SIZE, predict, task_of
from albert_jax.model_io.model import Model
from albert_jax.observe import flops
from albert_jax.tasks import metrics
from albert_jax.tasks.families import Family
from albert_jax.tasks.losses import flat_groups

RESAMPLED = ("classification", "regression", "choice", "tagging")
"""Families whose scores are cheap enough to be drawn again and again for an interval."""

COSINE_EXAMPLES = 256
"""Examples over which the cosines of the layers are averaged."""

BOOTSTRAP_SAMPLES = 500
"""Resamples of the examples for a confidence interval."""


@dataclass(frozen=True)
class Scores:
    """The scores of a model at one depth."""

    values: dict[str, float]
    interval: tuple[float, float] | None
    """95 % bounds of the first metric, where it is cheap enough to be resampled."""


def evaluate(
    model: Model, examples: Sequence[Any], *, num_layers: int | None = None, cosines: bool = False
) -> Scores:
    """Scores a model on labelled examples of its task.

    Beside the scores of the task stand forward_flops_per_token in the longest rows and, with
    `cosines`, the mean cosine of each layer over the first examples.

    Raises CheckpointError for a model that was not fine-tuned, and DataError.
    """
    task, kind = task_of(model)
    predictions = predict(model, examples, num_layers=num_layers)
    scores = kind.family.score(examples, predictions, task.labels)
    values = {name: scores[name] for name in task.metrics if name in scores} | scores
    values["forward_flops_per_token"] = flops.forward_per_token(
        model.config,
        sequence_length=model.run_config.phases[-1].sequence_length,
        predictions=task.canvas if task.name == "generation" else 0,
        num_layers=num_layers,
    )
    if cosines:
        values |= mean_cosines(
            model.params,
            model.config,
            model.run_config.compute,
            _rows(model, examples[:COSINE_EXAMPLES]),
            num_layers=num_layers,
        )
    bounds = None
    if kind.family.name in RESAMPLED:
        bounds = confidence_interval(kind.family, examples, predictions, task)
    return Scores(values, bounds)


def majority_scores(model: Model, examples: Sequence[Any]) -> tuple[dict[str, float], str]:
    """(scores of the commonest answer of the training examples, why there are none or "")."""
    task, kind = task_of(model)
    if kind.family.baseline is None:
        return {}, ""
    try:
        train = kind.family.read(task.train, task, True)
        return kind.family.baseline(train, examples, task.labels), ""
    except AlbertError as error:  # The file is gone, or no longer the one of the training.
        return {}, str(error)


def confidence_interval(
    family: Family, examples: Sequence[Any], predictions: Sequence[Any], task: TaskConfig
) -> tuple[float, float]:
    """95 % bounds of the first metric, from examples that are resampled with replacement."""

    def score(chosen: np.ndarray) -> float:
        sample = [examples[i] for i in chosen]
        return family.score(sample, [predictions[i] for i in chosen], task.labels)[task.metrics[0]]

    interval = metrics.bootstrap(score, np.arange(len(examples)), samples=BOOTSTRAP_SAMPLES)
    return interval.low, interval.high


def _rows(model: Model, examples: Sequence[Any]) -> Iterator[Any]:
    """Batches with one sequence per row, whatever the task."""
    task, kind = task_of(model)
    family, length = kind.family, model.run_config.phases[-1].sequence_length
    config = family.for_evaluation(task)
    features = family.features(model.vocabulary, examples, length, config, task.labels)
    generator = np.random.Generator(np.random.Philox(key=0))
    for begin in range(0, len(features), BATCH_SIZE):
        part = features[begin : begin + BATCH_SIZE]
        batch: Any = family.batch(model.vocabulary, part, length, BATCH_SIZE, config, generator)
        yield flat_groups(batch) if batch["input_ids"].ndim == 3 else batch
