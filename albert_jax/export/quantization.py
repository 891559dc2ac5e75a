"""Weights as int8 with a scale per output channel, and what that changes, pass by pass.

value = int8 x scale, symmetric: the scale of a channel is its largest magnitude / 127. Kernels
have a channel per output, the word table one per piece; biases, LayerNorms and the other tables,
which together are small, stay float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.export.programs import EXACT
from albert_jax.model import albert
from albert_jax.tree import flatten, unflatten

_TABLE = "embeddings/word_embeddings/embedding"


@dataclass(frozen=True)
class Int8:
    """One parameter; of the encoder's, with their leading axis of parameter sets."""

    values: np.ndarray
    """int8, of the parameter's shape."""
    scales: np.ndarray
    """float32 [channels], or [sets, channels]."""
    axis: int
    """Axis of the channels (of one set)."""

    def restored(self) -> np.ndarray:
        """float32: what the stored values stand for."""
        scales = self.scales[:, None] if self.axis == 0 else self.scales[..., None, :]
        return self.values.astype(np.float32) * scales


def quantise(params: Mapping[str, Any]) -> tuple[dict[str, Int8], dict[str, Any]]:
    """(the weights that become int8, by path; all parameters as a reader will see them)."""
    stored, seen = {}, {}
    for path, leaf in flatten(params).items():
        seen[path] = leaf
        if path == _TABLE or path.endswith("/kernel"):
            stored[path] = _rounded(np.asarray(leaf, np.float32), 0 if path == _TABLE else 1)
            seen[path] = stored[path].restored()
    return stored, unflatten(seen)


def _rounded(array: np.ndarray, axis: int) -> Int8:
    over = 1 if axis == 0 else -2
    # A channel of zeros keeps a scale that can be divided by.
    scales = np.maximum(np.abs(array).max(over, keepdims=True), 1e-30) / np.float32(127)
    values = np.rint(array / scales).astype(np.int8)
    return Int8(values, scales.squeeze(over).astype(np.float32), axis)


def drift(
    params: Mapping[str, Any],
    changed: Mapping[str, Any],
    model: ModelConfig,
    batch: Mapping[str, Any],
) -> list[dict[str, float]]:
    """Per pass: mean cosine and largest difference of the states of all tokens of some rows.

    `changed` are the parameters to compare with `params`.
    """

    @jax.jit
    def states(params: Mapping[str, Any]) -> jax.Array:
        return albert.encode_all_layers(params, model, batch, compute=EXACT)[1]

    @jax.jit
    def compared(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        real = jnp.asarray(batch["segment_ids"] > 0)
        dots = jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))
        cosine = jnp.sum(jnp.where(real, dots, 0), (1, 2)) / jnp.sum(real)
        return cosine, jnp.max(jnp.where(real[..., None], jnp.abs(a - b), 0), (1, 2, 3))

    cosines, worst = (np.asarray(x) for x in compared(states(params), states(changed)))
    return [
        {"pass": number, "cosine": float(cosine), "max_difference": float(most)}
        for number, (cosine, most) in enumerate(zip(cosines, worst, strict=True), start=1)
    ]
