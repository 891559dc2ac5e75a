"""Training examples as batches: pure functions of (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.config import Config
from albert_jax.data import counter_rng
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.tasks.support.rows import Batch, BatchSpec, fitting_length
from albert_jax.tasks.task import AnyTask

LENGTH_MULTIPLE = 16
"""Row lengths of shortened batches are rounded up to a multiple of this many tokens."""

_ORDER, _BATCH = 0x7A5C, 0xF17E


class TrainingBatches:
    """The features of the training examples, and the batches of every step."""

    def __init__(
        self, task: AnyTask, vocabulary: Vocabulary, examples: Sequence[Any], config: Config
    ) -> None:
        self.task, self.vocabulary = task, vocabulary
        self._examples, self._seed = examples, config.seed
        self._phases = [(phase.sequence_length, phase.batch_size) for phase in config.phases]
        self._features: dict[int, list[Any]] = {}

    def features(self, phase: int) -> list[Any]:
        """The features for the rows of a phase."""
        length = self._phases[phase][0]
        if length not in self._features:
            self._features[length] = self.task.featurize(self.vocabulary, self._examples, length)
        return self._features[length]

    def per_batch(self, phase: int) -> int:
        """Features in a batch of a phase."""
        return self._phases[phase][1] * self.task.features_per_row

    def steps_per_epoch(self) -> int:
        """Steps of the first phase that go through all features once."""
        return math.ceil(len(self.features(0)) / self.per_batch(0))

    def numbers(self, phase: int, step: int) -> np.ndarray:
        """Numbers of the features in the batch of a step of the run, in the order of its rows."""
        count = len(self.features(phase))
        return batch_order(self._seed, step, count, self.per_batch(phase))

    def batch(self, phase: int, step: int, rows: np.ndarray) -> Batch:
        """The given rows of the batch of a step of the run.

        Rows are as long as the longest text of the batch needs, in quarters of the phase's
        length, so that at most four programs are compiled. Every host draws the whole batch, so
        that no row depends on the number of hosts.
        """
        features, (maximum, batch_size) = self.features(phase), self._phases[phase]
        chosen = [features[i] for i in self.numbers(phase, step)]
        quarter = -(-maximum // (4 * LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
        longest = max(map(self.task.feature_length, chosen))
        length = fitting_length(longest, maximum, range(quarter, maximum, quarter))
        seed = counter_rng.key(self._seed, _BATCH, step)
        spec = BatchSpec(self.vocabulary, length, batch_size, seed)
        batch = self.task.collate(chosen, spec)
        return {name: column[rows] for name, column in batch.items()}


def batch_order(seed: int, step: int, examples: int, per_batch: int) -> np.ndarray:
    """Numbers of the examples of a step's batch, int64, at most `per_batch`.

    Each epoch has an order of its own, and no batch spans two epochs: the last one may be short.
    """
    if examples < 1:
        raise DataError("no training examples; give a file with at least one")
    epoch, index = divmod(step, math.ceil(examples / per_batch))
    bits = counter_rng.bits(counter_rng.key(seed, _ORDER, epoch), np.arange(examples))
    order = np.argsort(bits, kind="stable")
    return order[index * per_batch : (index + 1) * per_batch]
