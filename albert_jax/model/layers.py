"""The parts of the network, defined as NNX modules with one set of parameters each.

NNX is only a language for definitions here: parameters live in nested dicts of arrays, and `bind`
puts them into a module where it is applied. They are float32 and cast to the type of the input
where they are used, so that the gradients of several uses add up in float32.

Shapes: B rows, S tokens, H hidden size, N heads, D head size, E embedding size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.model import dropout as sites
from albert_jax.model.attention import XLA, Backend
from albert_jax.model.dropout import LayerDropout
from albert_jax.model.sharing import Params

SAVED = "matrix product"
"""Name of the values that the rematerialization policy "dots" keeps."""

ModuleT = TypeVar("ModuleT", bound=nnx.Module)


def bind(part: Callable[[ModelConfig], ModuleT], config: ModelConfig, params: Params) -> ModuleT:
    """The module of a part of the network with these parameters."""
    return nnx.merge(_definition(part, config)[0], params)


def param_shapes(part: Callable[[ModelConfig], nnx.Module], config: ModelConfig) -> dict[str, Any]:
    """Nested dict of jax.ShapeDtypeStruct of the parameters of a part; nothing is allocated."""
    return _definition(part, config)[1]


@lru_cache(maxsize=256)
def _definition(
    part: Callable[[ModelConfig], nnx.Module], config: ModelConfig
) -> tuple[nnx.GraphDef, dict[str, Any]]:
    definition, state = nnx.split(nnx.eval_shape(lambda: part(config)))
    return definition, nnx.to_pure_dict(state)


def gelu_new(x: jax.Array) -> jax.Array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), computed in float32."""
    y = x.astype(jnp.float32)
    tanh = jnp.tanh(math.sqrt(2.0 / math.pi) * (y + 0.044715 * y * y * y))
    return (0.5 * y * (1.0 + tanh)).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": gelu_new,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}
"""By the names that ModelConfig.hidden_act takes."""


def _computed_again(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """x, from which a backward pass computes something again that the forward pass has computed.

    Without the gradient in it, the compiler would take the result of the forward pass and keep it
    until then. (A gradient that is not finite makes x NaN; such a step changes nothing.)
    """
    return x + 0 * gradient


def _activate_and_multiply(activation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """activation(x) @ kernel, x [rows, in] and kernel [in, out] of one type -> [rows, out].

    Only x is kept for the backward pass, which computes the activation again. Automatic
    differentiation would keep its result too, and the tanh: three arrays of the largest size.
    """
    return ACTIVATIONS[activation](x) @ kernel


activate_and_multiply = jax.custom_vjp(_activate_and_multiply, nondiff_argnums=(0,))


def _activate_and_multiply_forward(
    activation: str, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _activate_and_multiply(activation, x, kernel), (x, kernel)


def _activate_and_multiply_backward(
    activation: str, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    x = _computed_again(x, gradient[:, :1])
    activated, pull_back = jax.vjp(ACTIVATIONS[activation], x)
    return pull_back(gradient @ kernel.T)[0], activated.T @ gradient


activate_and_multiply.defvjp(_activate_and_multiply_forward, _activate_and_multiply_backward)


def gather_positions(x: jax.Array, positions: jax.Array | np.ndarray) -> jax.Array:
    """States [B, S, H] at int32 positions [B, P] -> [B, P, H]."""
    return jnp.take_along_axis(x, positions[:, :, None], axis=1, mode="clip")


class Dense(nnx.Module):
    """y = x W + b, or with an activation y = activation(x) W + b; kernel [in, out]."""

    def __init__(self, inputs: int, outputs: int):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: jax.Array, activation: str | None = None) -> jax.Array:
        """x [..., in] -> [..., out], in the type of x."""
        # Two dimensions, because the weights' gradient would otherwise contract over two axes,
        # which XLA on CPU computes at half the speed.
        rows = x.reshape(-1, x.shape[-1])
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        product = activate_and_multiply(activation, rows, kernel) if activation else rows @ kernel
        return (product + bias).reshape(*x.shape[:-1], -1)

    def to_heads(self, x: jax.Array, heads: int) -> jax.Array:
        """x [B, S, in] -> [B, N, S, D] with N D = out.

        The product writes this layout itself: a TPU would copy for a transposition after it.
        """
        kernel = self.kernel[...].astype(x.dtype).reshape(x.shape[-1], heads, -1)
        bias = self.bias[...].astype(x.dtype).reshape(heads, -1)
        return _add_to_heads(jnp.einsum("bsh,hnd->bnsd", x, kernel), bias)

    def from_heads(self, x: jax.Array) -> jax.Array:
        """x [B, N, S, D] with N D = in -> [B, S, out]."""
        kernel = self.kernel[...].astype(x.dtype).reshape(x.shape[1], x.shape[3], -1)
        return jnp.einsum("bnsd,ndh->bsh", x, kernel) + self.bias[...].astype(x.dtype)


@jax.custom_vjp
def _add_to_heads(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [B, N, S, D] + bias [N, D]."""
    return x + bias[:, None]


def _add_to_heads_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return _add_to_heads(x, bias), None


def _add_to_heads_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The gradient of the bias as a product with ones: in this layout a TPU's vector unit would take
    # longer to add it up than its matrix unit takes for the whole projection. Eight columns,
    # behind a barrier, or the compiler would make it a sum again.
    ones = jnp.ones((gradient.shape[0], gradient.shape[2], 8), gradient.dtype)
    ones = jax.lax.optimization_barrier(ones)
    total = jnp.einsum("bnsd,bso->ndo", gradient, ones, preferred_element_type=jnp.float32)
    return gradient, total[..., 0].astype(gradient.dtype)


_add_to_heads.defvjp(_add_to_heads_forward, _add_to_heads_backward)


class LayerNorm(nnx.Module):
    """Normalizes the last axis in float32 whatever the compute type (epsilon 1e-12)."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,)))
        self.bias = nnx.Param(jnp.zeros((size,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., size] -> same shape and type."""
        return layer_norm(x, self.scale[...], self.bias[...])


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalizes x [..., size] in float32 (epsilon 1e-12); the result has the type of x."""
    # The backward pass recomputes from the input and two numbers per token; automatic
    # differentiation would keep three arrays of the size of x.
    return _layer_norm_forward(x, scale, bias)[0]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, axis=-1, keepdims=True)
    centered = y - mean
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    normalized = centered * inverse
    return (normalized * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _layer_norm_backward(
    saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = saved
    gradient = gradient.astype(jnp.float32)
    normalized = _computed_again(x.astype(jnp.float32) - mean, gradient) * inverse
    scaled = gradient * scale
    projection = jnp.mean(scaled * normalized, axis=-1, keepdims=True)
    centered = scaled - jnp.mean(scaled, axis=-1, keepdims=True)
    x_gradient = inverse * (centered - normalized * projection)
    token_axes = tuple(range(x.ndim - 1))
    scale_gradient = jnp.sum(gradient * normalized, token_axes)
    bias_gradient = jnp.sum(gradient, token_axes)
    # Scale and bias are float32, as these sums are.
    return x_gradient.astype(x.dtype), scale_gradient, bias_gradient


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class Embed(nnx.Module):
    """A table of embeddings."""

    def __init__(self, entries: int, size: int):
        self.embedding = nnx.Param(jnp.zeros((entries, size)))

    def __call__(self, ids: jax.Array) -> jax.Array:
        """ids [...] -> float32 [..., size]."""
        return self.embedding[...][ids]


class Embeddings(nnx.Module):
    """Factorized embeddings: three tables in E, LayerNorm, dropout, projection to H if E != H."""

    def __init__(self, config: ModelConfig):
        size = config.embedding_size
        self.word_embeddings = Embed(config.vocab_size, size)
        self.position_embeddings = Embed(config.max_position_embeddings, size)
        self.token_type_embeddings = Embed(config.type_vocab_size, size)
        self.layer_norm = LayerNorm(size)
        self.projects = size != config.hidden_size
        if self.projects:
            self.projection = Dense(size, config.hidden_size)

    def __call__(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        token_type_ids: jax.Array,
        dropout: LayerDropout,
        dtype: jnp.dtype,
    ) -> jax.Array:
        """Three int32 [B, S] -> [B, S, H] in the compute type."""
        x = self.word_embeddings(input_ids)
        x = x + self.position_embeddings(positions) + self.token_type_embeddings(token_type_ids)
        x = dropout.hidden(self.layer_norm(x).astype(dtype), sites.EMBEDDINGS)
        return self.projection(x) if self.projects else x


class Attention(nnx.Module):
    """Self-attention with its output projection, residual connection and LayerNorm."""

    def __init__(self, config: ModelConfig):
        hidden = config.hidden_size
        # Three products instead of a fused one: the optimizer treats each matrix by itself, and
        # splitting the fused result would cost copies.
        self.query = Dense(hidden, hidden)
        self.key = Dense(hidden, hidden)
        self.value = Dense(hidden, hidden)
        self.output = Dense(hidden, hidden)
        self.layer_norm = LayerNorm(hidden)
        self.heads = config.num_attention_heads

    def __call__(
        self,
        x: jax.Array,
        mask: Any,
        backend: Backend,
        dropout: LayerDropout,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """x [B, S, H], mask as `backend.prepare` made it -> [B, S, H].

        With positions [B, P], the result at these alone, [B, P, H]; dropout must be off then.
        """
        query_states, to_gather = x, positions
        if positions is not None and backend == XLA:  # A kernel wants as many queries as keys.
            query_states, to_gather = gather_positions(x, positions), None
            mask = jnp.take_along_axis(mask, positions[:, None, :, None], axis=2, mode="clip")
        query, key, value = self.project(x, backend.heads_first, query_states)
        context = checkpoint_name(backend.attend(query, key, value, mask, dropout), SAVED)
        if backend.heads_first:
            output = self.output.from_heads(context)
        else:
            output = self.output(context.reshape(x.shape))
        output = checkpoint_name(output, SAVED)
        states = self.layer_norm(query_states + dropout.hidden(output, sites.ATTENTION))
        return states if to_gather is None else gather_positions(states, to_gather)

    def project(
        self, x: jax.Array, heads_first: bool = True, query_states: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x [B, S, H] -> query (of `query_states` [B, P, H]), key, value, as `heads_first` says."""

        def heads(dense: Dense, states: jax.Array) -> jax.Array:
            if heads_first:
                return checkpoint_name(dense.to_heads(states, self.heads), SAVED)
            shape = (*states.shape[:2], self.heads, states.shape[2] // self.heads)
            return checkpoint_name(dense(states).reshape(shape), SAVED)

        query = heads(self.query, x if query_states is None else query_states)
        return query, heads(self.key, x), heads(self.value, x)


class FeedForward(nnx.Module):
    """Feed-forward network with its residual connection and LayerNorm."""

    def __init__(self, config: ModelConfig):
        self.intermediate = Dense(config.hidden_size, config.intermediate_size)
        self.output = Dense(config.intermediate_size, config.hidden_size)
        self.layer_norm = LayerNorm(config.hidden_size)
        self.activation = config.hidden_act

    def __call__(self, x: jax.Array, dropout: LayerDropout) -> jax.Array:
        """x [B, S, H] -> [B, S, H]."""
        inner = checkpoint_name(self.intermediate(x), SAVED)
        output = checkpoint_name(self.output(inner, self.activation), SAVED)
        return self.layer_norm(x + dropout.hidden(output, sites.FFN))
