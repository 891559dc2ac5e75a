"""From examples to predictions: features, batches of a few shapes, outputs, answers. No jax."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.errors import DataError
from albert_jax.tasks import masked_diffusion as canvas
from albert_jax.tasks.families import Family
from albert_jax.tasks.old_features import Batch, fitting_length
from albert_jax.tasks.sentence_tasks import Labels, Prediction

Outputs = Callable[[Batch], Any]
"""The forward pass of a batch: arrays with one entry per row."""

NOWHERE = -1e30
"""Logit of a place behind the end of a shorter row."""


def featurise(
    family: Family,
    vocabulary: Any,
    examples: Sequence[Any],
    config: TaskConfig,
    labels: Labels,
    length: int,
) -> list[Any]:
    """Features of examples for rows of `length`; DataError where none gives a row."""
    config = family.for_evaluation(config)
    features = family.features(vocabulary, examples, length, config, labels)
    if not features:
        raise DataError(
            f"{examples[0].where if examples else 'input'}: none of the examples gives a row: "
            "look at their texts"
        )
    return features


def predict(
    family: Family,
    vocabulary: Any,
    examples: Sequence[Any],
    config: TaskConfig,
    labels: Labels,
    outputs: Outputs,
    *,
    length: int,
    rows: int,
    temperature: float = 0.0,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
    features: Sequence[Any] | None = None,
) -> list[Prediction]:
    """One prediction per example.

    `features` are those of `featurise`, where they have been made already. Batches have `rows`
    rows and one of a few lengths, so that few programs are compiled. `temperature`, `seed` and
    `show` (the canvas after each round, as text) are for generation. Raises DataError as
    `featurise`.
    """
    if features is None:
        features = featurise(family, vocabulary, examples, config, labels, length)
    config = family.for_evaluation(config)
    generator = np.random.Generator(np.random.Philox(key=seed))
    found: list[Any] = [None] * len(features)
    for size, numbers in _shapes(family, features, length, max(config.beam)):
        for begin in range(0, len(numbers), rows):
            part = numbers[begin : begin + rows]
            chosen = [features[i] for i in part]
            if family.name == "generation":
                decoded = canvas.decode(
                    vocabulary, chosen, outputs, size, rows,
                    rounds=config.rounds, temperature=temperature, seed=seed + begin,
                )  # fmt: skip
                if show is not None:
                    for shown in decoded.rounds:
                        show(" | ".join(vocabulary.decode(row.tolist()) for row in shown))
                results = [vocabulary.decode(ids.tolist()) for ids in decoded.ids]
            else:
                batch = family.batch(vocabulary, chosen, size, rows, config, generator)
                results = _rows(outputs(batch), len(part))
            for number, result in zip(part, results, strict=True):
                found[number] = result
    stacked = found if family.name == "generation" else _stacked(found)
    return family.predict(examples, features, stacked, config, labels)


def _shapes(
    family: Family, features: Sequence[Any], length: int, least: int
) -> Iterator[tuple[int, list[int]]]:
    """(row length, numbers of the features in such rows), the shortest first."""
    lengths = [n for n in (32, 64, 128, 256) if n >= least]
    sizes = [fitting_length(family.tokens(feature), length, lengths) for feature in features]
    for size in sorted(set(sizes)):
        yield size, [i for i, own in enumerate(sizes) if own == size]


def _rows(arrays: Any, count: int) -> list[Any]:
    """Entry by entry; several arrays give tuples."""
    if isinstance(arrays, tuple):
        return list(zip(*(np.asarray(array)[:count] for array in arrays), strict=True))
    return list(np.asarray(arrays)[:count])


def _stacked(found: Sequence[Any]) -> Any:
    if isinstance(found[0], tuple):
        return tuple(_padded(column) for column in zip(*found, strict=True))
    return _padded(found)


def _padded(arrays: Sequence[Any]) -> np.ndarray:
    """Arrays of rows of several lengths as one, their first axis filled up with NOWHERE."""
    shapes = {np.shape(array) for array in arrays}
    if len(shapes) == 1:
        return np.stack(arrays)
    whole = (len(arrays), max(shape[0] for shape in shapes), *np.shape(arrays[0])[1:])
    result = np.full(whole, NOWHERE, np.asarray(arrays[0]).dtype)
    for i, array in enumerate(arrays):
        result[i, : len(array)] = array
    return result
