"""From examples to predictions: features, batches of a few shapes, outputs, answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.support.rows import LENGTHS, NEGATIVE, BatchSpec, fitting_length
from albert_jax.tasks.task import AnyTask, Forward, Prediction

MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings of generated text; only the generation task reads them."""

    temperature: float = 0.0
    """0 takes the most probable token; above 0 tokens are drawn."""
    seed: int = 0
    """Seed of the random draws."""
    show_step: Callable[[str], None] | None = None
    """Called with the text after each denoising step."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value out of its range."""
        if self.temperature and not 1e-4 <= self.temperature <= 1e4:
            raise ConfigError(f"--temperature {self.temperature}: give 0, or 0.0001 to 10000")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"--seed {self.seed}: give a number from 0 to {MAX_SEED}")


def evenly_spaced(examples: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many of the examples, from the whole file: it may be sorted by its labels."""
    if len(examples) <= most:
        return examples
    return [examples[i * len(examples) // most] for i in range(most)]


def featurize(
    task: AnyTask, vocabulary: Vocabulary, examples: Sequence[Any], length: int
) -> list[Any]:
    """Features of examples for rows of `length`; DataError if there are none."""
    features = task.for_prediction().featurize(vocabulary, examples, length)
    if not features:
        raise DataError(
            f"{examples[0].where if examples else 'input'}: none of the examples makes a row: "
            "look at their texts"
        )
    return features


def predict(
    task: AnyTask,
    vocabulary: Vocabulary,
    examples: Sequence[Any],
    run: Forward,
    *,
    length: int,
    batch_size: int,
    sampling: Sampling | None = None,
    features: Sequence[Any] | None = None,
) -> list[Prediction]:
    """One prediction per example.

    Rows have one of a few lengths up to `length`, so that few programs are compiled. `features`
    are those of `featurize`, if they were made already.
    """
    sampling = sampling or Sampling()
    if features is None:
        features = featurize(task, vocabulary, examples, length)
    task = task.for_prediction()
    outputs: list[Any] = [None] * len(features)
    for size, numbers in length_buckets(
        [task.feature_length(feature) for feature in features], length, task.shortest_length
    ):
        for begin in range(0, len(numbers), batch_size):
            part = numbers[begin : begin + batch_size]
            spec = BatchSpec(vocabulary, size, batch_size)
            results = task.forward([features[i] for i in part], run, spec, sampling)
            for number, result in zip(part, results, strict=True):
                outputs[number] = result
    return task.predict(examples, features, _stack(outputs))


def length_buckets(
    needed: Sequence[int], maximum: int, shortest: int = 1
) -> Iterator[tuple[int, list[int]]]:
    """Row lengths between `shortest` and `maximum`, and the numbers of the features in such rows.

    `needed` are the tokens of each feature.
    """
    lengths = [n for n in LENGTHS if n >= shortest]
    sizes = [fitting_length(n, maximum, lengths) for n in needed]
    for size in sorted(set(sizes)):
        yield size, [i for i, other in enumerate(sizes) if other == size]


def _stack(outputs: Sequence[Any]) -> Any:
    """Outputs of all features as arrays (or a tuple of arrays); texts stay a list.

    In rows of several lengths the first axis is filled up with NEGATIVE.
    """
    if isinstance(outputs[0], str):
        return list(outputs)
    if isinstance(outputs[0], tuple):
        return tuple(_stack(column) for column in zip(*outputs, strict=True))
    shapes = {np.shape(array) for array in outputs}
    if len(shapes) == 1:
        return np.stack(outputs)
    size = (len(outputs), max(shape[0] for shape in shapes), *np.shape(outputs[0])[1:])
    result = np.full(size, NEGATIVE, np.asarray(outputs[0]).dtype)
    for i, array in enumerate(outputs):
        result[i, : len(array)] = array
    return result
