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
POOL = 16
"""Consecutive batches of an epoch whose examples are sorted together by length."""

# Keys of the draws of one purpose each.
_ORDER, _BATCH, _POOLED = 0x7A5C, 0xF17E, 0x9001


class TrainingBatches:
    """The features of the training examples, and the batches of every step."""

    def __init__(
        self, task: AnyTask, vocabulary: Vocabulary, examples: Sequence[Any], config: Config
    ) -> None:
        self.task, self.vocabulary = task, vocabulary
        self._examples, self._seed = examples, config.seed
        self._phases = [(phase.sequence_length, phase.batch_size) for phase in config.phases]
        self._features: dict[int, tuple[list[Any], np.ndarray]] = {}
        self._epoch: tuple[tuple[int, int], list[np.ndarray]] = ((-1, -1), [])

    def features(self, phase: int) -> list[Any]:
        """The features for the rows of a phase."""
        return self._with_lengths(phase)[0]

    def _with_lengths(self, phase: int) -> tuple[list[Any], np.ndarray]:
        """The features for the rows of a phase, and the row length that each needs: in quarters of
        the phase's length, so that at most four programs are compiled."""
        maximum = self._phases[phase][0]
        if maximum not in self._features:
            features = self.task.featurize(self.vocabulary, self._examples, maximum)
            if not features:
                raise DataError("no training examples; give a file with at least one")
            quarter = -(-maximum // (4 * LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
            quarters = range(quarter, maximum, quarter)
            needed = map(self.task.feature_length, features)
            lengths = np.array([fitting_length(length, maximum, quarters) for length in needed])
            self._features[maximum] = features, lengths
        return self._features[maximum]

    def per_batch(self, phase: int) -> int:
        """Features in a batch of a phase."""
        return self._phases[phase][1] * self.task.features_per_row

    def steps_per_epoch(self) -> int:
        """Steps of the first phase that go through all features once."""
        return math.ceil(len(self.features(0)) / self.per_batch(0))

    def numbers(self, phase: int, step: int) -> np.ndarray:
        """Numbers of the features in the batch of a step of the run, in the order of its rows.

        int64, at most `per_batch`: no batch spans two epochs, so one of an epoch may be short.
        """
        lengths, per_batch = self._with_lengths(phase)[1], self.per_batch(phase)
        epoch, index = divmod(step, math.ceil(len(lengths) / per_batch))
        kept, batches = self._epoch
        if kept != (phase, epoch):
            batches = epoch_batches(self._seed, epoch, lengths, per_batch)
            self._epoch = (phase, epoch), batches
        return batches[index]

    def batch(self, phase: int, step: int, rows: np.ndarray) -> Batch:
        """The given rows of the batch of a step of the run.

        Every host draws the whole batch, so that no row depends on the number of hosts.
        """
        (features, lengths), numbers = self._with_lengths(phase), self.numbers(phase, step)
        seed = counter_rng.key(self._seed, _BATCH, step)
        longest = int(lengths[numbers].max())
        spec = BatchSpec(self.vocabulary, longest, self._phases[phase][1], seed)
        batch = self.task.collate([features[i] for i in numbers], spec)
        return {name: column[rows] for name, column in batch.items()}


def epoch_batches(seed: int, epoch: int, lengths: np.ndarray, per_batch: int) -> list[np.ndarray]:
    """Numbers of the examples in each batch of an epoch, by the row lengths [n] that they need.

    The examples have a random order. Those of every POOL batches are then sorted by length, since a
    batch is as long as its longest row and the rest would be padding, and the batches have a random
    order again.
    """

    order = counter_rng.permutation(counter_rng.key(seed, _ORDER, epoch), len(lengths))
    order = order[np.lexsort((lengths[order], np.arange(len(order)) // (POOL * per_batch)))]
    batches = np.split(order, range(per_batch, len(order), per_batch))
    shuffled = counter_rng.permutation(counter_rng.key(seed, _POOLED, epoch), len(batches))
    return [batches[i] for i in shuffled]
