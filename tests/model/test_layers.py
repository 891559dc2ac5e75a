"""The layers' own backward passes: equal to automatic differentiation, with less kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.model.layers import ACTIVATIONS, activate_and_multiply

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(0, 2, (24, 32)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(0, 1, (32, 8)), jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(0, 1, (24, 8)), jnp.float32)


def plain(activation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return ACTIVATIONS[activation](x) @ kernel


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activate_and_multiply_has_the_gradient_of_its_formula(activation):
    def gradients(function):
        def loss(x, kernel):
            return jnp.sum(WEIGHTS * function(activation, x, kernel))

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(X, KERNEL)

    (value, found), (true_value, expected) = gradients(activate_and_multiply), gradients(plain)
    assert value == pytest.approx(float(true_value), rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activate_and_multiply_keeps_its_inputs_alone(dtype):
    """Of the large arrays only x is kept, in its own type, where the formula keeps more."""

    def kept_bytes(function) -> int:
        _, pull_back = jax.vjp(
            lambda x, kernel: function("gelu_new", x, kernel), X.astype(dtype), KERNEL.astype(dtype)
        )
        return sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back))

    width = jnp.dtype(dtype).itemsize
    assert kept_bytes(activate_and_multiply) == (X.size + KERNEL.size) * width
    assert kept_bytes(plain) > kept_bytes(activate_and_multiply)


def test_a_compiled_network_of_several_layers_keeps_no_activation():
    """The compiler may not move what is computed again to where it was computed first."""
    blocks, rows, hidden, inner = 6, 512, 64, 1024
    weights = jnp.zeros((hidden, inner)), jnp.zeros((inner, hidden))

    def memory(function) -> int:
        def loss(weights, x):
            for _ in range(blocks):
                x = x + function("gelu_new", x @ weights[0], weights[1])
            return jnp.sum(x * x)

        compiled = jax.jit(jax.grad(loss)).lower(weights, jnp.zeros((rows, hidden))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one = rows * inner * 4
    assert memory(activate_and_multiply) < memory(plain) - (blocks - 2) * one
