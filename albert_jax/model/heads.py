"""The heads of pretraining, and the pooler that the [CLS] token passes through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model import layers


class Pooler(layers.Dense):
    """tanh of a dense layer of the hidden states at [CLS]."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.hidden_size, config.hidden_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., H] -> [..., H]."""
        return jnp.tanh(super().__call__(x))


class SopHead(layers.Dense):
    """Dense layer from the pooled [CLS] to the two sentence orders."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.hidden_size, 2)


class MlmHead(nnx.Module):
    """Dense to E, activation, LayerNorm, product with the word embeddings, a bias per token id."""

    def __init__(self, config: ModelConfig):
        self.dense = layers.Dense(config.hidden_size, config.embedding_size)
        self.layer_norm = layers.LayerNorm(config.embedding_size)
        self.bias = nnx.Param(jnp.zeros((config.vocab_size,)))
        self.activation = config.hidden_act

    def transform(self, x: jax.Array) -> jax.Array:
        """x [..., H] -> [..., E], of which the products with the word embeddings are taken."""
        return self.layer_norm(layers.ACTIVATIONS[self.activation](self.dense(x)))

    def __call__(self, x: jax.Array, word_embeddings: jax.Array) -> jax.Array:
        """x [..., H], word_embeddings [V, E] -> float32 logits [..., V]."""
        x = self.transform(x)
        logits = jnp.einsum(
            "...e,ve->...v", x, word_embeddings.astype(x.dtype), preferred_element_type=jnp.float32
        )
        return logits + self.bias[...]


class WordHead(layers.Dense):
    """Dense layer from the hidden states to the words of the labels."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.hidden_size, config.word_vocab_size)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., H] -> float32 logits [..., W]."""
        kernel = self.kernel[...].astype(x.dtype)
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + self.bias[...]
