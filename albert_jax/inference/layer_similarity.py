"""The change by each layer: the cosine of every token's state to that before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import albert
from albert_jax.tasks.support.rows import ENCODER_INPUTS


def mean_cosines(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    num_layers: int | None = None,
) -> dict[str, float]:
    """The mean cosine of each token's state after a layer to its state before.

    Padding does not count. The result is {"cosine_of_layer_1": ..., ...}, where a value near 1
    means that the layer changes little; it is empty if the batches hold no token. Where a layer
    has several blocks (inner_group_num), it is that of each block, "cosine_of_block_1".
    """

    @jax.jit
    def sums(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        real = (batch["segment_ids"] > 0).astype(jnp.float32)
        # The sums are accumulated inside the scan over the layers, so no state is kept.
        _, cosines = albert.encode_all_layers(
            params, config, batch, compute=compute, num_layers=num_layers,
            capture=lambda before, after: jnp.sum(real * cosine(before, after)),
        )  # fmt: skip
        return cosines, jnp.sum(real)

    total: Any = 0.0
    count = 0.0
    for batch in batches:
        cosines, tokens = jax.device_get(
            sums(params, {name: batch[name] for name in ENCODER_INPUTS})
        )
        total = total + cosines.astype(np.float64)
        count += float(tokens)
    if not count:
        return {}
    unit = "layer" if config.inner_group_num == 1 else "block"
    return {f"cosine_of_{unit}_{i}": float(value / count) for i, value in enumerate(total, start=1)}


def cosine(a: Any, b: Any) -> jax.Array:
    """Cosines float32 [...] of the vectors of two arrays [..., H]."""
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(lengths, 1e-12)
