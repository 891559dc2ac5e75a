"""Dropout whose masks depend only on seed, step, global row number, block and site.

So no mask changes with the number of devices, hosts or gradient accumulation steps. Every row
has a key of its own, and masks are drawn by vmap over the rows' keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

KEY_IMPLEMENTATION = "threefry2x32"
"""Named explicitly, because the global default may be one whose vmap repeats the first key."""

EMBEDDINGS, PROBABILITIES, ATTENTION, FFN = range(4)
"""Sites of dropout in a block; the embeddings use the first one of block 0."""
_SITES = 4
HEAD = 2**31 - 1
"""Site of a task's own head: `drop(x, keys, rate, HEAD)`."""


def row_keys(seed: jax.Array | int, step: jax.Array | int, rows: jax.Array) -> jax.Array:
    """One key per row [B] from the run's seed, the step and the rows' global numbers [B]."""
    key = jax.random.key(seed, impl=KEY_IMPLEMENTATION)
    key = jax.random.fold_in(key, step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def drop(x: jax.Array, keys: jax.Array | None, rate: float, site: jax.Array | int) -> jax.Array:
    """Zeroes elements of x [B, ...] with probability `rate` and scales up the rest.

    `keys` [B] are those of the rows; None turns dropout off. A rate of 0 costs nothing.
    """
    if keys is None or rate == 0.0:
        return x
    threshold = round((1.0 - rate) * 2**32)

    def row_mask(key: jax.Array) -> jax.Array:
        bits = jax.random.bits(jax.random.fold_in(key, site), x.shape[1:], jnp.uint32)
        return bits < jnp.uint32(threshold)

    kept = jax.vmap(row_mask)(keys)
    return jnp.where(kept, x / (threshold / 2**32), jnp.zeros((), x.dtype))


@dataclass(frozen=True)
class LayerDropout:
    """The dropout of one block of the encoder: the rows' keys [B] (None: off) and the rates."""

    keys: jax.Array | None
    hidden_rate: float
    attention_rate: float
    block: jax.Array | int = 0

    def at(self, block: jax.Array | int) -> LayerDropout:
        """The same dropout for another block."""
        return replace(self, block=block)

    def hidden(self, x: jax.Array, site: int) -> jax.Array:
        """Drops activations at a site."""
        return drop(x, self.keys, self.hidden_rate, self.block * _SITES + site)

    def probabilities(self, x: jax.Array) -> jax.Array:
        """Drops attention probabilities."""
        return drop(x, self.keys, self.attention_rate, self.block * _SITES + PROBABILITIES)
