"""Training examples as batches: pure functions of (config, step)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data import counter_rng
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.model import flops
from albert_jax.tasks.support.rows import Batch, BatchSpec, fitting_length
from albert_jax.tasks.task import AnyTask

LENGTH_MULTIPLE = 16
"""Row lengths of shortened batches are rounded up to a multiple of this many tokens."""
PROGRAM_FLOPS = 3e11
"""Cost of compiling a step for one more row length: some four seconds of a CPU that trains."""
POOL = 16
"""Consecutive batches of an epoch whose examples are sorted together by length."""

# Keys of the draws of one purpose each.
_ORDER, _BATCH, _POOLED = 0x7A5C, 0xF17E, 0x9001


class TrainingFeatures:
    """The features of the training examples for the rows of each phase."""

    def __init__(
        self, task: AnyTask, vocabulary: Vocabulary, examples: Sequence[Any], config: Config
    ) -> None:
        self.task, self.vocabulary, self._examples = task, vocabulary, examples
        self._lengths = [phase.sequence_length for phase in config.phases]
        self._per_batch = [phase.batch_size * task.features_per_row for phase in config.phases]
        self._features: dict[int, list[Any]] = {}

    def of_phase(self, phase: int) -> list[Any]:
        """The features for the rows of a phase. Raises DataError without examples."""
        maximum = self._lengths[phase]
        if maximum not in self._features:
            features = self.task.featurize(self.vocabulary, self._examples, maximum)
            if not features:
                raise DataError("no training examples; give a file with at least one")
            self._features[maximum] = features
        return self._features[maximum]

    def steps_per_epoch(self, phase: int = 0) -> int:
        """Steps of a phase that go through all features once."""
        return math.ceil(len(self.of_phase(phase)) / self.per_batch(phase))

    def per_batch(self, phase: int) -> int:
        """Features in a batch of a phase."""
        return self._per_batch[phase]


class TrainingBatches:
    """The batches of every step of a run, whose config tells how long it is."""

    def __init__(self, features: TrainingFeatures, config: Config) -> None:
        self.features, self._config = features, config
        self._rows: dict[int, np.ndarray] = {}
        self._epoch: tuple[tuple[int, int], list[np.ndarray]] = ((-1, -1), [])

    def _row_lengths(self, phase: int) -> np.ndarray:
        """The length int64 [n] of the rows in which each feature of a phase stands."""
        if phase not in self._rows:
            needed = map(self.features.task.feature_length, self.features.of_phase(phase))
            settings = self._config.phases[phase]
            features = self.features.of_phase(phase)[: self.features.per_batch(phase)]
            spec = BatchSpec(
                self.features.vocabulary, settings.sequence_length, settings.batch_size
            )
            # A row of a multiple-choice question or of several pairs has many sequences.
            ids = self.features.task.collate(features, spec)["input_ids"]
            self._rows[phase] = row_lengths(
                np.array(list(needed)), self._config.model, settings, ids.size // ids.shape[-1]
            )
        return self._rows[phase]

    def numbers(self, phase: int, step: int) -> np.ndarray:
        """Numbers of the features in the batch of a step of the run, in the order of its rows.

        int64, at most `per_batch`: no batch spans two epochs, so one of an epoch may be short.
        """
        epoch, index = divmod(step, self.features.steps_per_epoch(phase))
        kept, batches = self._epoch
        if kept != (phase, epoch):
            lengths, per_batch = self._row_lengths(phase), self.features.per_batch(phase)
            batches = epoch_batches(self._config.seed, epoch, lengths, per_batch)
            self._epoch = (phase, epoch), batches
        return batches[index]

    def batch(self, phase: int, step: int, rows: np.ndarray) -> Batch:
        """The given rows of the batch of a step of the run.

        Every host draws the whole batch, so that no row depends on the number of hosts.
        """
        numbers, features = self.numbers(phase, step), self.features.of_phase(phase)
        longest = int(self._row_lengths(phase)[numbers].max())
        spec = BatchSpec(
            self.features.vocabulary,
            longest,
            self._config.phases[phase].batch_size,
            counter_rng.key(self._config.seed, _BATCH, step),
        )
        batch = self.features.task.collate([features[i] for i in numbers], spec)
        return {name: column[rows] for name, column in batch.items()}


def row_lengths(
    needed: np.ndarray, model: ModelConfig, phase: PhaseConfig, sequences: int
) -> np.ndarray:
    """The length int64 [n] of the row of each feature, by the tokens [n] that it needs.

    `sequences` is their number in a batch.

    They are some of the quarters of the phase's length: those with which the steps and the
    compilation of a program for each length cost least together, so that a long run has up to four
    and a short one may have one.
    """
    maximum = phase.sequence_length
    quarter = -(-maximum // (4 * LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
    quarters = [*range(quarter, maximum, quarter), maximum]
    costs = {
        length: 3 * phase.steps * sequences * length * flops.forward_per_token(
            model, sequence_length=length, predictions=0
        )
        for length in quarters
    }  # fmt: skip
    longest = fitting_length(int(needed.max()), maximum, quarters)

    def fitted(lengths: tuple[int, ...]) -> np.ndarray:
        return np.array(lengths)[np.searchsorted(lengths, np.minimum(needed, longest))]

    def cost(lengths: tuple[int, ...]) -> float:
        used, counts = np.unique(fitted(lengths), return_counts=True)
        steps = sum(costs[int(n)] * count for n, count in zip(used, counts, strict=True))
        return steps / len(needed) + PROGRAM_FLOPS * len(used)

    shorter = [length for length in quarters if length < longest]
    choices = [
        (*some, longest)
        for count in range(len(shorter) + 1)
        for some in itertools.combinations(shorter, count)
    ]
    return fitted(min(choices, key=cost))


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
