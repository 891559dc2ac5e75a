"""Which examples stand in which batch: pure functions of seed and step."""

from __future__ import annotations

import math

import numpy as np

from albert_jax.data import counter_rng as random
from albert_jax.errors import DataError

NOTHING = -1
"""Stands for no example: a filler row."""


def steps_per_epoch(examples: int, per_batch: int) -> int:
    """Steps to see each example once; the last batch may be short."""
    if examples < 1:
        raise DataError("no training examples; give a file with at least one")
    return math.ceil(examples / per_batch)


def steps_of(epochs: float, examples: int, per_batch: int) -> int:
    """Steps of a number of epochs, at least 1."""
    return max(1, round(epochs * steps_per_epoch(examples, per_batch)))


def batch_examples(seed: int, step: int, examples: int, per_batch: int) -> np.ndarray:
    """Numbers of the examples of a step's batch, int64 [per_batch]; NOTHING where it is short.

    Each epoch has an order of its own, and no batch spans two epochs.
    """
    epoch, place = divmod(step, steps_per_epoch(examples, per_batch))
    order = epoch_order(seed, epoch, examples)[place * per_batch : (place + 1) * per_batch]
    found = np.full(per_batch, NOTHING, np.int64)
    found[: len(order)] = order
    return found


def epoch_order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """A permutation of the examples, by sorting random keys."""
    keys = random.bits(random.key(seed, 0x7A5C, epoch), np.arange(examples))
    return np.argsort(keys, kind="stable")
