"""How little each layer changes: the cosine of every token's state to that before the layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig

_INPUTS = ("input_ids", "token_type_ids", "segment_ids", "positions")


def mean_cosines(
    params: Mapping[str, Any],
    config: ModelConfig,
    compute: ComputeConfig,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    num_layers: int | None = None,
) -> dict[str, float]:
    """The mean cosine of each token's state after a layer to its state before.

    Padding does not count. The sums are accumulated inside the scan over the layers, so no state
    is kept.

    Returns:
      {"cosine_of_layer_1": ..., ...}; a cosine near 1 means that the layer changes little. The
      dict is empty if the batches hold no token.
    """
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert

    @jax.jit
    def sums(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        real = (batch["segment_ids"] > 0).astype(jnp.float32)
        _, cosines = albert.encode_all_layers(
            params, config, batch, compute=compute, num_layers=num_layers,
            capture=lambda before, after: jnp.sum(real * cosine(before, after)),
        )  # fmt: skip
        return cosines, jnp.sum(real)

    total, count = np.zeros(()), 0.0
    for batch in batches:
        cosines, tokens = jax.device_get(sums(params, {name: batch[name] for name in _INPUTS}))
        total = total + cosines.astype(np.float64)
        count += float(tokens)
    if not count:
        return {}
    return {
        f"cosine_of_layer_{number}": float(value / count)
        for number, value in enumerate(np.atleast_1d(total), start=1)
    }


def cosine(a: Any, b: Any) -> Any:
    """Cosines float32 [...] of the vectors of two arrays [..., H]."""
    import jax.numpy as jnp

    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(lengths, 1e-12)
