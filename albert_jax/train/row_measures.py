"""Loss and gradient norm of each row of a batch by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from albert_jax.config import PhaseConfig
from albert_jax.model.dropout import row_keys
from albert_jax.objectives.loss_terms import Loss, mean, weight_names
from albert_jax.train.step import frozen_parameters
from albert_jax.train.task import Batch

OUTLIER = 5.0
"""A row stands out if it lies so many scaled median absolute deviations above the median row."""


class RowMeasures(NamedTuple):
    """The parts of the rows of a batch in its loss and its gradient, float [B] each."""

    loss: np.ndarray
    """Mean loss over the targets of the row alone."""
    grad_norm: np.ndarray
    """Norm of the gradient of the row's part of the step's loss; these gradients add up to the
    step's."""

    @property
    def share(self) -> np.ndarray:
        """Each row's part of the sum of all gradient norms, float [B]."""
        return self.grad_norm / self.grad_norm.sum()

    @property
    def finite(self) -> np.ndarray:
        """True for each row whose loss and gradient are finite, bool [B]."""
        return np.isfinite(self.loss) & np.isfinite(self.grad_norm)

    @property
    def excess(self) -> np.ndarray:
        """Distance of each row above the median row in loss or gradient norm, whichever is larger,
        in scaled median absolute deviations, float [B]; infinite for rows that are not finite."""
        finite = self.finite
        excess = np.full(len(finite), np.inf)
        if finite.any():
            scores = [_scores(column[finite]) for column in self]
            excess[finite] = np.max(scores, axis=0)
        return excess

    @property
    def worst_first(self) -> np.ndarray:
        """Numbers of the rows by falling excess."""
        return np.argsort(-self.excess, kind="stable")

    @property
    def outliers(self) -> np.ndarray:
        """Numbers of the rows that explain the step, worst first: those that are not finite, or
        else those that stand out."""
        order, finite = self.worst_first, self.finite
        count = np.sum(self.excess > OUTLIER) if finite.all() else np.sum(~finite)
        return order[:count]


def _scores(values: np.ndarray) -> np.ndarray:
    center = np.median(values)
    # The factor makes it the standard deviation of a normal distribution.
    spread = 1.4826 * np.median(np.abs(values - center))
    return (values - center) / max(spread, 0.05 * abs(center), 1e-12)


def measure_rows(
    loss: Loss,
    params: Mapping[str, Any],
    batch: Batch,
    phase: PhaseConfig,
    *,
    seed: int,
    step: int,
    num_layers: int | None,
    pretraining: bool,
) -> RowMeasures:
    """Measures the rows of a global batch one by one on one device, with the dropout of the step.

    `params` are those before the step, complete, as numpy arrays or on one device.
    """
    # A weight that is not finite would make every other row not finite, too.
    weights = {
        name: np.float32(np.sum(batch[name], where=np.isfinite(batch[name])))
        for name in weight_names(batch)
    }
    measure = jax.jit(_measure, static_argnums=(0, 1, 2, 3))
    columns = measure(loss, phase, pretraining, num_layers, params, batch, weights, seed, step)
    return RowMeasures(*(np.asarray(column, np.float64) for column in columns))


def _measure(
    loss: Loss,
    phase: PhaseConfig,
    pretraining: bool,
    num_layers: int | None,
    params: Any,
    batch: Mapping[str, jax.Array],
    weights: Mapping[str, jax.Array],
    seed: jax.Array,
    step: jax.Array,
) -> tuple[Any, Any]:
    frozen = frozen_parameters(params, phase, pretraining=pretraining)
    numbers = jnp.arange(len(next(iter(batch.values()))), dtype=jnp.int32)
    keys = row_keys(seed, step, numbers)

    def part(params: Any, row: Any) -> tuple[jax.Array, jax.Array]:
        """A row's part of the loss of the step, and its own mean loss."""
        columns, key = jax.tree.map(lambda x: x[None], row)
        params = jax.tree.map(
            lambda w, is_frozen: jax.lax.stop_gradient(w) if is_frozen else w, params, frozen
        )
        terms, _ = loss(params, columns, dropout=key, num_layers=num_layers)
        own = {name: jnp.sum(columns[name]) for name in weight_names(columns)}
        return mean(terms, weights), mean(terms, own)

    def measure(_: None, row: Any) -> tuple[None, Any]:
        gradient, own = jax.grad(part, has_aux=True)(params, row)
        return None, (own, optax.tree.norm(gradient))

    # The gradients of all rows at once would need the memory of the parameters for each of them.
    return jax.lax.scan(measure, None, (dict(batch), keys))[1]
