"""Which pieces of a text decide its label: integrated gradients (Sundararajan et al. 2017).

The text's embeddings are reached in a straight line from those of a row that says nothing, the
same row with [MASK] for every piece but the special ones. What the margin of the label gains on
the way is shared out among the pieces, and the shares add up to the whole gain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from albert_jax.config import ComputeConfig
from albert_jax.model_io.model import Model
from albert_jax.tasks.losses import INPUTS, Forward
from albert_jax.tasks.old_features import Batch

RELATIVE, ABSOLUTE = 0.01, 1e-3
"""The shares add up to the gain within RELATIVE x |gain| + ABSOLUTE (in logits)."""

MOST_POINTS = 1024
"""Points of the line at which gradients are taken at most."""

_CHUNK = 16


class Attribution(NamedTuple):
    """What each piece adds to the margin of a label: its logit less the mean of the others'."""

    label: int
    shares: np.ndarray
    """float64 [S]; positive: speaks for the label."""
    gain: float
    """Margin of the text less that of the empty row."""
    points: int
    """Gradients that were averaged."""

    @property
    def error(self) -> float:
        """How far the shares are from adding up to the gain."""
        return abs(float(self.shares.sum()) - self.gain)

    @property
    def complete(self) -> bool:
        """Whether they do, within the bound at the top of this module."""
        return self.error <= RELATIVE * abs(self.gain) + ABSOLUTE

    def __str__(self) -> str:
        """One line on completeness."""
        return (
            f"the shares add up to {self.shares.sum():.4f}, the margin gains {self.gain:.4f} over "
            f"a row of [MASK]: {'within' if self.complete else 'NOT within'} {RELATIVE:.0%} + "
            f"{ABSOLUTE:g} at {self.points} points"
        )


def attribute(model: Model, batch: Batch, *, num_layers: int | None = None) -> Attribution:
    """The shares of the pieces of one row (batch of 1) in the likeliest label of a classifier.

    In float32. The points of the line (Gauss and Legendre's) are doubled until the shares are
    complete, or MOST_POINTS.
    """
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert
    from albert_jax.tasks import heads

    config, vocabulary = model.config, model.vocabulary
    task = model.run_config.task
    assert task is not None and task.name == "classification"
    compute = ComputeConfig(dtype="float32")
    forward = Forward(config, compute, pooling=task.pooling)
    row: dict[str, Any] = {name: jnp.asarray(batch[name]) for name in INPUTS}
    special = np.isin(batch["input_ids"], [vocabulary.cls_id, vocabulary.sep_id])
    empty = np.where(special | (batch["segment_ids"] == 0), batch["input_ids"], vocabulary.mask_id)
    end = albert.embed(model.params, config, row, compute=compute)[0]
    blank = row | {"input_ids": jnp.asarray(empty)}
    start = albert.embed(model.params, config, blank, compute=compute)[0]

    def logits(params: Any, x: jax.Array) -> jax.Array:
        rows = {name: jnp.repeat(column, len(x), 0) for name, column in row.items()}

        def layer(x: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            ids = rows["segment_ids"]
            return albert.apply_layer(params, config, x, ids, number, num_layers=num_layers), None

        x, _ = jax.lax.scan(layer, x, jnp.arange(num_layers or config.num_hidden_layers))
        return heads.classify(params["head"], forward.pool(params, x, rows))

    def margin(params: Any, x: jax.Array, label: int) -> jax.Array:
        found = logits(params, x)
        own = found[:, label]
        return own - (jnp.sum(found, -1) - own) / (found.shape[1] - 1)

    ends = jnp.stack([start, end])
    label = int(jnp.argmax(jax.jit(logits)(model.params, ends)[1]))
    before, after = np.asarray(jax.jit(margin, static_argnums=2)(model.params, ends, label))

    @jax.jit
    def summed(params: Any, at: jax.Array, weights: jax.Array) -> jax.Array:
        x = start + at[:, None, None] * (end - start)
        gradient = jax.grad(lambda x: jnp.sum(margin(params, x, label)))(x)
        shares = jnp.einsum("n,nsh->sh", weights, gradient) * (end - start)
        return jnp.sum(shares, -1)

    points = _CHUNK
    while True:
        at, weights = np.polynomial.legendre.leggauss(points)
        at, weights = ((at + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)
        shares = sum(
            np.asarray(
                summed(model.params, at[i : i + _CHUNK], weights[i : i + _CHUNK]), np.float64
            )
            for i in range(0, points, _CHUNK)
        )
        found = Attribution(label, np.asarray(shares), float(after) - float(before), points)
        if found.complete or points >= MOST_POINTS:
            return found
        points *= 2
