"""Word prediction: the word to which each symbol belongs (phoneme to grapheme, PL-BERT 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig
from albert_jax.model import heads, layers
from albert_jax.objectives import loss_terms
from albert_jax.objectives.loss_terms import LossTerm, LossTerms

MAX_LOGITS = 1 << 25
"""Most logits that are computed at once (128 MB), but at least those of a position of each row.
A row of 512 symbols with 65,536 words has as many."""


def word_prediction(
    params: Mapping[str, Any],
    model: ModelConfig,
    states: jax.Array,
    batch: Mapping[str, jax.Array],
    *,
    max_logits: int = MAX_LOGITS,
) -> LossTerms:
    """The term "word" and the weighted sum "word_correct" over positions of a batch.

    `states` [B, P, H] are the hidden states at the positions of the columns word_labels and
    word_weights [B, P]. Above `max_logits` logits the positions are processed in blocks, and each
    block is computed again in the backward pass, so that no more logits are kept.
    """
    rows, positions = batch["word_labels"].shape
    size = min(max(1, max_logits // (rows * model.word_vocab_size)), positions)
    blocks = math.ceil(positions / size)
    size = math.ceil(positions / blocks)

    def divided(x: jax.Array) -> jax.Array:
        """[B, P, ...] -> [blocks, B, size, ...]; padding has no weight."""
        missing = blocks * size - positions
        x = jnp.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(rows, blocks, size, *x.shape[2:]), 1, 0)

    def of_block(states: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        logits = head(states)
        losses = loss_terms.cross_entropy(logits, labels)
        correct = loss_terms.weighted_correct(logits, labels, weights)
        return jnp.stack([jnp.sum(weights * losses), correct])

    # Positions without a label have no weight, and any word serves as theirs.
    head = layers.bind(heads.WordHead, model, params["word_head"])
    columns = states, jnp.maximum(batch["word_labels"], 0), batch["word_weights"]
    run = of_block if blocks == 1 else jax.checkpoint(of_block)
    sums = jax.lax.map(lambda block: run(*block), jax.tree.map(divided, columns))
    loss, correct = jnp.sum(sums, axis=0)
    return LossTerms({"word": LossTerm(loss, "word_weights")}, {"word_correct": correct})
