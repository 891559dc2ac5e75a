"""A fine-tuned model measured with the scores of its task, beside a majority baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.errors import AlbertError
from albert_jax.evaluation import confusion
from albert_jax.evaluation.confusion import Confusion
from albert_jax.evaluation.intervals import bootstrap
from albert_jax.inference.layer_similarity import mean_cosines
from albert_jax.inference.predict import BATCH_SIZE, featurize, predict, task_of, truncated_examples
from albert_jax.model import flops
from albert_jax.model.albert import FLOAT32
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.encoder import flatten_groups
from albert_jax.tasks.support.rows import BatchSpec

COSINE_EXAMPLES = 256
"""Examples over which the cosines of the layers are averaged."""

BOOTSTRAP_SAMPLES = 500
"""Resamples of the examples for a confidence interval."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model at one depth."""

    values: dict[str, float]
    metric: str
    """The first metric of the task that these examples have a score for."""
    interval: tuple[float, float] | None
    """95 % bounds of the metric, where it is cheap enough to be resampled."""
    confusion: Confusion | None = None
    """The wrong answers of a classifier."""
    single_answer: str = ""
    """The answer of all predictions, in words, if they are all the same."""
    truncated: str = ""
    """The number of examples that are longer than a row, in words; empty if there are none."""


def evaluate(
    model: Model, examples: Sequence[Any], *, num_layers: int | None = None, cosines: bool = False
) -> Evaluation:
    """Scores a model on labeled examples of its task.

    Beside the scores of the task stand forward_flops_per_token in the longest rows and, with
    `cosines`, the mean cosine of each layer over the first examples.

    Raises CheckpointError for a model that was not fine-tuned, and DataError.
    """
    task = task_of(model)
    features = featurize(model, examples)
    predictions = predict(model, examples, features=features, num_layers=num_layers)
    truncated = truncated_examples(model, features)
    values, single_answer = task.evaluate(examples, predictions)
    # Other examples may have other scores than those of the run.
    metric = next((name for name in task.config.metrics if name in values), next(iter(values)))
    values["forward_flops_per_token"] = flops.forward_per_token(
        model.config,
        sequence_length=model.run_config.phases[-1].sequence_length,
        predictions=task.predicted_positions,
        num_layers=num_layers,
    )
    if cosines:
        values |= mean_cosines(
            model.params,
            model.config,
            FLOAT32,
            _batches(model, examples[:COSINE_EXAMPLES]),
            num_layers=num_layers,
        )

    def first_score(chosen: np.ndarray) -> float:
        sample = [examples[i] for i in chosen]
        return task.score(sample, [predictions[i] for i in chosen])[metric]

    if not task.confidence_interval:
        return Evaluation(values, metric, None, None, single_answer, truncated)
    _, low, high = bootstrap(first_score, np.arange(len(examples)), BOOTSTRAP_SAMPLES)
    wrong = confusion.of_predictions(task, examples, predictions)
    return Evaluation(values, metric, (low, high), wrong, single_answer, truncated)


def majority_scores(model: Model, examples: Sequence[Any]) -> tuple[dict[str, float], str]:
    """(scores of the majority class of the training examples, why there are none or "")."""
    task = task_of(model)
    if not task.has_baseline:
        return {}, ""
    try:
        train = task.read_examples(task.config.train, labelled=True)
        return task.baseline(train, examples), ""
    except AlbertError as error:  # The file is gone, or no longer the one of the training.
        return {}, str(error)


def _batches(model: Model, examples: Sequence[Any]) -> Iterator[Any]:
    """Batches with one sequence per row, whatever the task."""
    task = task_of(model).for_prediction()
    length = model.run_config.phases[-1].sequence_length
    features = featurize(model, examples)
    spec = BatchSpec(model.vocabulary, length, BATCH_SIZE)
    for begin in range(0, len(features), BATCH_SIZE):
        batch: Any = task.collate(features[begin : begin + BATCH_SIZE], spec)
        yield flatten_groups(batch) if batch["input_ids"].ndim == 3 else batch
