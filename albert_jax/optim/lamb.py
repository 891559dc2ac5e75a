"""LAMB as in the original (You et al. 2019, arXiv 1904.00962; albert/lamb_optimizer.py)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from albert_jax.optim.adamw import Moments, decayed_direction, zero_moments
from albert_jax.optim.parameter_groups import excluded, path_of, stacked


def lamb(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, weight_decay: float = 0.01
) -> optax.GradientTransformationExtraArgs:
    """No bias correction, eps outside the root; `update` takes `learning_rate`.

    The trust ratio |w| / |u| (1 where either is 0) is taken per parameter of the unstacked
    model: once per parameter set of a stacked leaf, so stacking changes no number. Biases and
    LayerNorm parameters have neither decay nor ratio.
    """

    def update(
        gradients: Any, state: Moments, params: Any = None, *, learning_rate: Any, **_: Any
    ) -> tuple[Any, Moments]:
        if params is None:
            raise ValueError("lamb needs the parameters")
        direction, state = decayed_direction(gradients, state, params, b1, b2, eps, weight_decay)

        def scaled(keys: tuple[Any, ...], u: jax.Array, w: jax.Array) -> jax.Array:
            path = path_of(keys)
            ratio = 1.0 if excluded(path) else trust_ratio(w, u, per_set=stacked(path))
            return -learning_rate * ratio * u

        return jax.tree_util.tree_map_with_path(scaled, direction, params), state

    # The protocol does not know that `learning_rate` is always given.
    return optax.GradientTransformationExtraArgs(zero_moments, update)  # pyright: ignore[reportArgumentType]


def trust_ratio(w: jax.Array, u: jax.Array, *, per_set: bool) -> jax.Array:
    """|w| / |u|, or 1 where either is 0; [n, 1, ...] per entry of axis 0, or one scalar."""
    axes = tuple(range(1 if per_set else 0, w.ndim))
    w_norm = jnp.sqrt(jnp.sum(jnp.square(w), axis=axes, keepdims=per_set))
    u_norm = jnp.sqrt(jnp.sum(jnp.square(u), axis=axes, keepdims=per_set))
    usable = (w_norm > 0) & (u_norm > 0)
    return jnp.where(usable, w_norm / jnp.where(usable, u_norm, 1.0), 1.0)
