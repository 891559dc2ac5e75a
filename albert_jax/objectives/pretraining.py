"""The pretraining loss: masked tokens, and optionally sentence order and word prediction.

A new objective is a file like masked_lm.py, a field of ObjectiveConfig, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig, ObjectiveConfig
from albert_jax.data.batches.batch import SOFTMAX_SEED
from albert_jax.model import albert, layers
from albert_jax.model.attention import XLA, Backend
from albert_jax.objectives.loss_terms import Loss, LossTerms
from albert_jax.objectives.masked_lm import masked_lm
from albert_jax.objectives.sampled_softmax import sampled_masked_lm
from albert_jax.objectives.sentence_order import sentence_order
from albert_jax.objectives.word_prediction import word_prediction


def pretraining_loss(
    model: ModelConfig,
    compute: ComputeConfig,
    backend: Backend = XLA,
    *,
    objective: ObjectiveConfig | None = None,
    top_k: int = 1,
    by_frequency: np.ndarray | None = None,
) -> Loss:
    """The loss of pretraining rows, by default of ObjectiveConfig(); for `top_k` see `masked_lm`.

    `by_frequency` [V] lists the token ids, the most frequent one first; by default they are taken
    to be in that order. Only the sampled softmax needs it.
    """
    objective = objective or ObjectiveConfig()
    frequency = np.arange(model.vocab_size) if by_frequency is None else by_frequency
    softmax_size = objective.softmax_size(model)
    has_order, words = objective.sentence_order != "none", objective.word_prediction

    def loss(
        params: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        dropout: jax.Array | None,
        num_layers: int | None,
    ) -> LossTerms:
        columns = [batch["mlm_positions"]] + [batch["cls_positions"]] * has_order
        positions = jnp.concatenate(columns, axis=1)
        states = every_state = albert.encode(
            params, model, batch,
            compute=compute, num_layers=num_layers, dropout=dropout, backend=backend,
            positions=None if words == "all" else positions,
        )  # fmt: skip
        if words == "all":
            states = layers.gather_positions(every_state, positions)
        masked = batch["mlm_positions"].shape[1]
        if softmax_size and SOFTMAX_SEED in batch:
            result = sampled_masked_lm(
                params, model, states[:, :masked], batch, size=softmax_size, by_frequency=frequency
            )
        else:
            result = masked_lm(params, model, states[:, :masked], batch, top_k=top_k)
        if has_order:
            order = sentence_order(params, model, states[:, masked:], batch)
            result = LossTerms(result.terms | order.terms, result.sums | order.sums)
        if words != "none":
            symbols = every_state if words == "all" else states[:, :masked]
            word = word_prediction(params, model, symbols, batch)
            result = LossTerms(result.terms | word.terms, result.sums | word.sums)
        return result

    return loss
