"""The result of every loss: sums and the names of their weights, never a mean.

The total weights come from the whole global batch before the backward pass, so the loss is the
mean over the global batch whatever the number of devices and gradient accumulation steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class LossTerm(NamedTuple):
    """One term of a loss: the sum of weight x loss over rows and positions, a float32 scalar."""

    total: jax.Array
    weights: str
    """Name of the batch column that holds the weights; it ends in "_weights"."""
    smoothing: float = 0.0
    """Added to the total weight. If 0, the total weight is clamped to at least 1."""

    def divisor(self, weight: jax.Array) -> jax.Array:
        """The number that divides the sum when `weight` is the total of the global batch."""
        return weight + self.smoothing if self.smoothing else jnp.maximum(weight, 1.0)


class LossTerms(NamedTuple):
    """All terms of a loss, which add up, and further sums that are only reported."""

    terms: dict[str, LossTerm]
    sums: dict[str, jax.Array]


class Loss(Protocol):
    """A loss over the rows of one batch; whatever it compares lies within one row.

    `dropout` holds the dropout keys of the rows [B], or None to switch dropout off. `num_layers`
    is the depth; None means the model's own.
    """

    def __call__(
        self,
        params: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        dropout: jax.Array | None,
        num_layers: int | None,
    ) -> LossTerms:
        """The sums over the rows of a batch."""
        ...


def weight_names(batch: Mapping[str, Any]) -> list[str]:
    """The columns of a batch that hold weights, in the order of their names."""
    return sorted(name for name in batch if name.endswith("_weights"))


def means(terms: Mapping[str, LossTerm], weights: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The mean of each term: total / divisor, where `weights` are the total weights by name."""
    return {name: term.total / term.divisor(weights[term.weights]) for name, term in terms.items()}


def mean(terms: Mapping[str, LossTerm], weights: Mapping[str, jax.Array]) -> jax.Array:
    """The loss: the sum of `means`, a float32 scalar."""
    return sum(means(terms, weights).values(), jnp.zeros((), jnp.float32))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax at the labels: float32 [..., C] and int32 [...] to float32 [...]."""
    return jax.nn.logsumexp(logits, axis=-1) - logit_at(logits, labels)


def logit_at(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit of each label: [..., C] and [...] to [...]."""
    return jnp.take_along_axis(logits, labels[..., None], axis=-1, mode="clip")[..., 0]


def weighted_correct(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """The summed weights of the labels that have the largest logit, a float32 scalar."""
    # The loss computes the largest logit anyway; an argmax would read the vocabulary once more.
    return jnp.sum(weights * (logit_at(logits, labels) >= jnp.max(logits, axis=-1)))
