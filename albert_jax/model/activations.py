"""Activation functions; GELU is the tanh form of the original, with a derivative of our own."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

_C = math.sqrt(2.0 / math.pi)
_A = 0.044715


@jax.custom_vjp
def gelu_new(x: jax.Array) -> jax.Array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), computed in float32.

    The backward pass recomputes from the input alone: automatic differentiation would keep
    further arrays of the size of x, and element-wise work on them is bound by memory.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1.0 + jnp.tanh(_C * (y + _A * y * y * y)))).astype(x.dtype)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if x.dtype != jnp.float32:
        # Without the barrier XLA would keep x in float32, in which it was computed and is used.
        x = jax.lax.optimization_barrier(x)
    return gelu_new(x), x


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    y = x.astype(jnp.float32)
    t = jnp.tanh(_C * (y + _A * y * y * y))
    slope = 0.5 * (1.0 + t) + 0.5 * y * (1.0 - t * t) * (_C * (1.0 + 3.0 * _A * y * y))
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


gelu_new.defvjp(_forward, _backward)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": gelu_new,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
"""The activations by the names that ModelConfig.hidden_act takes."""
