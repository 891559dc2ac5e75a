"""A fine-tuned model measured with the scores of its task, beside a majority baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.errors import AlbertError
from albert_jax.inference.layer_similarity import mean_cosines
from albert_jax.inference.predict import BATCH_SIZE, predict, task_of
from albert_jax.model_io.model import Model
from albert_jax.observe import flops
from albert_jax.tasks import metrics
from albert_jax.tasks.features import INPUTS
from albert_jax.tasks.task import BatchSpec

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
    config, task = task_of(model)
    predictions = predict(model, examples, num_layers=num_layers)
    scores = task.score(examples, predictions, config)
    values = {name: scores[name] for name in config.metrics if name in scores} | scores
    values["forward_flops_per_token"] = flops.forward_per_token(
        model.config,
        sequence_length=model.run_config.phases[-1].sequence_length,
        predictions=task.predicted_positions(config),
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
    if task.confidence_interval:
        bounds = confidence_interval(model, examples, predictions)
    return Scores(values, bounds)


def majority_scores(model: Model, examples: Sequence[Any]) -> tuple[dict[str, float], str]:
    """(scores of the commonest answer of the training examples, why there are none or "")."""
    config, task = task_of(model)
    if not task.has_baseline:
        return {}, ""
    try:
        train = task.read_examples(config.train, config, labelled=True)
        return task.baseline(train, examples, config), ""
    except AlbertError as error:  # The file is gone, or no longer the one of the training.
        return {}, str(error)


def confidence_interval(
    model: Model, examples: Sequence[Any], predictions: Sequence[Any]
) -> tuple[float, float]:
    """95 % bounds of the first metric, from examples that are resampled with replacement."""
    config, task = task_of(model)

    def score(chosen: np.ndarray) -> float:
        sample = [examples[i] for i in chosen]
        return task.score(sample, [predictions[i] for i in chosen], config)[config.metrics[0]]

    interval = metrics.bootstrap(score, np.arange(len(examples)), samples=BOOTSTRAP_SAMPLES)
    return interval.low, interval.high


def _rows(model: Model, examples: Sequence[Any]) -> Iterator[Any]:
    """Batches with one sequence per row, whatever the task."""
    config, task = task_of(model)
    length = model.run_config.phases[-1].sequence_length
    config = task.prediction_config(config)
    features = task.featurize(model.vocabulary, examples, length, config)
    spec = BatchSpec(model.vocabulary, length, BATCH_SIZE)
    for begin in range(0, len(features), BATCH_SIZE):
        batch = task.collate(features[begin : begin + BATCH_SIZE], config, spec)
        yield {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in INPUTS}
