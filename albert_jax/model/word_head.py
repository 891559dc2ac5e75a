"""The head of the objective `words`: which word stands behind a symbol."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig
from albert_jax.model import layers
from albert_jax.model.sharing import Params


class WordHead(layers.Dense):
    """Dense layer from the hidden states to the words of the labels."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.hidden_size, config.num_words)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., H] -> float32 logits [..., W]."""
        kernel = self.kernel[...].astype(x.dtype)
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + self.bias[...]


def logits(params: Params, config: ModelConfig, states: jax.Array) -> jax.Array:
    """Float32 logits [..., W] over the words of the labels from hidden states [..., H]."""
    return layers.bind(WordHead, config, params["word_head"])(states)
