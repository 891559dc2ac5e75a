"""Contributions of tokens to a label by integrated gradients (Sundararajan et al. 2017).

The embeddings of the text are reached in a straight line from those of the baseline, which is the
same row with [MASK] for every token but the special ones. The gain of the label's margin along
the line is distributed over the tokens, and the contributions add up to the whole gain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from albert_jax.inference.predict import task_of
from albert_jax.model import albert
from albert_jax.model.albert import FLOAT32
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.rows import INPUTS, Batch

RELATIVE, ABSOLUTE = 0.01, 1e-3
"""The contributions add up to the gain within RELATIVE x |gain| + ABSOLUTE (in logits)."""

MAX_POINTS = 1024
"""Most points of the line at which gradients are taken."""

SMALL_CHANGE = 0.05
"""A smaller change of the probability says little about the words."""
MIN_GAIN = 0.05
"""Below this gain its ratio to the change of the probability is noise."""
MAX_SLOPE = 0.25
"""The steepest slope of a logistic function."""

_CHUNK = 16


class Attribution(NamedTuple):
    """Contribution of each token to the margin of a label (its logit less the others' mean)."""

    label: int
    values: np.ndarray
    """float64 [S]; a positive contribution speaks for the label."""
    gain: float
    """Margin of the text less that of the baseline."""
    points: int
    """Number of gradients that were averaged."""
    probabilities: tuple[float, float] = (0.0, 1.0)
    """Probability of the label for the baseline and for the text."""

    @property
    def convergence_delta(self) -> float:
        """Difference between the sum of the contributions and the gain."""
        return abs(float(self.values.sum()) - self.gain)

    @property
    def complete(self) -> bool:
        """Returns whether the contributions add up to the gain within the bound of this module."""
        return self.convergence_delta <= RELATIVE * abs(self.gain) + ABSOLUTE

    @property
    def in_probability(self) -> np.ndarray:
        """The contributions scaled from logits to probability, float64 [S].

        The factor is change of probability / gain, or p (1 - p) at the text where the gain is
        under MIN_GAIN or has the other sign.
        """
        before, after = self.probabilities
        ratio = (after - before) / self.gain if abs(self.gain) > MIN_GAIN else 0.0
        return self.values * (min(ratio, MAX_SLOPE) if ratio > 0 else after * (1 - after))

    def in_words(self, label: str) -> str:
        """The probabilities, and a warning if the words hardly change them."""
        before, after = self.probabilities
        already = " already" if before > 0.5 and after - before < SMALL_CHANGE else ""
        told = f"Without its words the model says {label} with {before:.1%}{already}, with them "
        if abs(after - before) < SMALL_CHANGE:
            return f"{told}{after:.1%}: they hardly change it, so single contributions say little."
        return (
            f"{told}{after:.1%}: together they change it by {100 * (after - before):+.1f} points."
        )

    def __str__(self) -> str:
        """One line on completeness."""
        return (
            f"the contributions add up to {self.values.sum():.4f}, the margin gains "
            f"{self.gain:.4f} over a row of [MASK]: {'within' if self.complete else 'NOT within'} "
            f"{RELATIVE:.0%} + {ABSOLUTE:g} at {self.points} points"
        )


def attribute(model: Model, batch: Batch, *, num_layers: int | None = None) -> Attribution:
    """Contributions of the tokens of one row (a batch of 1) to a classifier's predicted label.

    Everything is computed in float32. The number of points on the line (of Gauss-Legendre
    quadrature) is doubled until the contributions are complete, or MAX_POINTS is reached.
    """
    config, vocabulary, task = model.config, model.vocabulary, task_of(model)
    encoder = Encoder(config, FLOAT32)
    row: dict[str, Any] = {name: jnp.asarray(batch[name]) for name in INPUTS}
    special = np.isin(batch["input_ids"], [vocabulary.cls_id, vocabulary.sep_id])
    masked = np.where(special | (batch["segment_ids"] == 0), batch["input_ids"], vocabulary.mask_id)
    baseline = row | {"input_ids": jnp.asarray(masked)}
    start = albert.embed(model.params, config, baseline, compute=FLOAT32)[0]
    end = albert.embed(model.params, config, row, compute=FLOAT32)[0]

    def logits(params: Any, x: jax.Array) -> jax.Array:
        rows = {name: jnp.repeat(column, len(x), 0) for name, column in row.items()}

        def layer(x: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            ids = rows["segment_ids"]
            return albert.apply_layer(params, config, x, ids, number, num_layers=num_layers), None

        x, _ = jax.lax.scan(layer, x, jnp.arange(num_layers or config.num_hidden_layers))
        return task.head_logits(encoder.bind(params), x, rows)

    def margin(params: Any, x: jax.Array, label: int) -> jax.Array:
        every = logits(params, x)
        own = every[:, label]
        return own - (jnp.sum(every, -1) - own) / (every.shape[1] - 1)

    ends = jnp.stack([start, end])
    outputs = np.asarray(jax.jit(logits)(model.params, ends), np.float64)
    label = int(outputs[1].argmax())
    empty, full = softmax(outputs, -1)[:, label].tolist()
    before, after = np.asarray(jax.jit(margin, static_argnums=2)(model.params, ends, label))

    @jax.jit
    def weighted_sum(params: Any, at: jax.Array, weights: jax.Array) -> jax.Array:
        x = start + at[:, None, None] * (end - start)
        gradient = jax.grad(lambda x: jnp.sum(margin(params, x, label)))(x)
        return jnp.sum(jnp.einsum("n,nsh->sh", weights, gradient) * (end - start), -1)

    points = _CHUNK
    while True:
        at, weights = np.polynomial.legendre.leggauss(points)
        at, weights = ((at + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)
        values = np.zeros(len(start))
        for i in range(0, points, _CHUNK):
            values += weighted_sum(model.params, at[i : i + _CHUNK], weights[i : i + _CHUNK])
        gain = float(after) - float(before)
        attribution = Attribution(label, values, gain, points, (empty, full))
        if attribution.complete or points >= MAX_POINTS:
            return attribution
        points *= 2
