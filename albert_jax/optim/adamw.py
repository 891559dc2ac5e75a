"""AdamW as in the original (albert/optimization.py): uncorrected moments, eps outside the root."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from albert_jax.optim.parameter_groups import excluded, path_of


class Moments(NamedTuple):
    """State of both update rules: means of the gradient and of its square, like the parameters."""

    m: Any
    v: Any


def zero_moments(params: Any) -> Moments:
    """The state before the first step."""
    return Moments(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))


def decayed_direction(
    gradients: Any,
    state: Moments,
    params: Any,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Any, Moments]:
    """m / (sqrt(v) + eps) + decay x w with the new moments; no decay where a name excludes it."""
    m = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.m, gradients)
    v = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * jnp.square(g), state.v, gradients)

    def direction(keys: tuple[Any, ...], m: jax.Array, v: jax.Array, w: jax.Array) -> jax.Array:
        u = m / (jnp.sqrt(v) + eps)
        return u if excluded(path_of(keys)) else u + weight_decay * w

    return jax.tree_util.tree_map_with_path(direction, m, v, params), Moments(m, v)


def adamw(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, weight_decay: float = 0.01
) -> optax.GradientTransformationExtraArgs:
    """Decoupled decay, no bias correction; `update` takes `learning_rate`."""

    def update(
        gradients: Any, state: Moments, params: Any = None, *, learning_rate: Any, **_: Any
    ) -> tuple[Any, Moments]:
        if params is None:
            raise ValueError("adamw needs the parameters")
        direction, state = decayed_direction(gradients, state, params, b1, b2, eps, weight_decay)
        return jax.tree.map(lambda u: -learning_rate * u, direction), state

    # The protocol does not know that `learning_rate` is always given.
    return optax.GradientTransformationExtraArgs(zero_moments, update)  # pyright: ignore[reportArgumentType]
