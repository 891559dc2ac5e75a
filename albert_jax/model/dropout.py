"""Dropout whose masks depend on (seed, step, row of the global batch, pass, site) and nothing else.

So no mask changes with the number of devices, hosts or micro-batches. Every row has a key of its
own; masks are drawn by vmap over the rows' keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

KEY_IMPLEMENTATION = "threefry2x32"
"""Named, because the global default may be one whose vmap repeats the first key."""

EMBEDDINGS, PROBABILITIES, ATTENTION, FFN = range(4)
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

    `keys` None means that dropout is off; a rate of 0 costs nothing.
    """
    if keys is None or rate == 0.0:
        return x
    kept = round((1.0 - rate) * 2**32)

    def row_mask(key: jax.Array) -> jax.Array:
        bits = jax.random.bits(jax.random.fold_in(key, site), x.shape[1:], jnp.uint32)
        return bits < jnp.uint32(kept)

    return jnp.where(jax.vmap(row_mask)(keys), x / (kept / 2**32), jnp.zeros((), x.dtype))


@dataclass(frozen=True)
class PassDropout:
    """The dropout of one pass: rows' keys [B] (None: off), rates, and which pass it is."""

    keys: jax.Array | None
    hidden_rate: float
    attention_rate: float
    number: jax.Array | int = 0

    def at(self, number: jax.Array | int) -> PassDropout:
        """The same for pass `number`."""
        return replace(self, number=number)

    def site(self, site: int) -> jax.Array | int:
        """The number that this pass folds into the keys at a site."""
        return self.number * _SITES + site

    def hidden(self, x: jax.Array, site: int) -> jax.Array:
        """Dropout of activations at a site."""
        return drop(x, self.keys, self.hidden_rate, self.site(site))

    def probabilities(self, x: jax.Array) -> jax.Array:
        """Dropout of attention probabilities."""
        return drop(x, self.keys, self.attention_rate, self.site(PROBABILITIES))
