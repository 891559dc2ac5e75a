"""Confidence intervals of scores: how far a score on so many examples can be from the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_Z95 = 1.959963984540054
"""The normal quantile of a 95 % interval."""


class Interval(NamedTuple):
    """A value with the bounds of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(metric: Callable[..., float], column: Any, samples: int = 1000) -> Interval:
    """Percentile interval of a metric over entries of `column` drawn with replacement."""
    values = np.asarray(column)
    rng = np.random.Generator(np.random.Philox(key=0))
    count = len(values)
    drawn = [metric(values[rng.integers(0, count, count)]) for _ in range(samples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(metric(values)), float(low), float(high))


def share(right: float, count: int) -> Interval:
    """The share right / count with Wilson's score interval, which holds near 0 and 1 too.

    Halves may be among what is right; the interval is then a little wide.
    """
    z, p = _Z95, right / count
    middle, scale = (p + z * z / (2 * count)), 1 + z * z / count
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Interval(
        p, max(0.0, min(p, (middle - half) / scale)), min(1.0, max(p, (middle + half) / scale))
    )


def mean_of_shares(shares: Sequence[Interval]) -> Interval:
    """The mean of shares of independent samples, whose number and kind are taken as fixed.

    The bounds combine the distances of the shares' own bounds (Zou and Donner 2008, MOVER), so that
    those of one share are its own.
    """
    value, low, high = np.array(shares).T
    mean, count = float(value.mean()), len(shares)
    below = math.sqrt(float(np.square(value - low).sum())) / count
    above = math.sqrt(float(np.square(high - value).sum())) / count
    return Interval(mean, mean - below, mean + above)
