"""What every loss returns: sums, and the names of their weights, never a mean.

The totals of the weights come from the whole global batch before the backward pass, so the
loss is the mean over the global batch whatever the number of devices and micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class LossTerm(NamedTuple):
    """One part of a loss: sum over rows and places of weight x loss, float32 scalar."""

    total: jax.Array
    weights: str
    """Name of the batch column that holds the weights; it ends in "_weights"."""
    smoothing: float = 0.0
    """Added to the weights' total; 0: the total is not let below 1 instead."""

    def divisor(self, weight: jax.Array) -> jax.Array:
        """What the sum is divided by, when `weight` is the total weight of the global batch."""
        return weight + self.smoothing if self.smoothing else jnp.maximum(weight, 1.0)


class LossTerms(NamedTuple):
    """All parts of a loss, which add up, and further sums that are only reported."""

    terms: dict[str, LossTerm]
    sums: dict[str, jax.Array]


class Loss(Protocol):
    """A loss of the rows of one batch; what it compares lies within one row.

    `dropout` holds the rows' keys [B] or None, `passes` the depth (None: the model's own).
    """

    def __call__(
        self,
        params: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        dropout: jax.Array | None,
        num_layers: int | None,
    ) -> LossTerms:
        """Parameters and rows to sums."""
        ...


def weight_names(batch: Mapping[str, Any]) -> list[str]:
    """The columns of a batch that hold weights, in the order of their names."""
    return sorted(name for name in batch if name.endswith("_weights"))


def mean(terms: Mapping[str, LossTerm], weights: Mapping[str, jax.Array]) -> jax.Array:
    """Sum over the terms of total / divisor."""
    return sum(
        (term.total / term.divisor(weights[term.weights]) for term in terms.values()),
        jnp.zeros((), jnp.float32),
    )
