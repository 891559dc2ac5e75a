"""The masked-language objective (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig
from albert_jax.model import albert
from albert_jax.objectives import loss_terms
from albert_jax.objectives.loss_terms import LossTerm, LossTerms

SMOOTHING = 1e-5
"""Added to the number of masked tokens by the original (run_pretraining.py)."""


def masked_lm(
    params: Mapping[str, Any],
    model: ModelConfig,
    states: jax.Array,
    batch: Mapping[str, jax.Array],
    *,
    top_k: int = 1,
) -> LossTerms:
    """The term "mlm" and the weighted sum "mlm_correct" over the masked positions of a batch.

    `states` [B, P, H] are the hidden states at mlm_positions; the columns mlm_labels and
    mlm_weights are [B, P]. For `top_k` above 1, "mlm_top<top_k>_correct" counts the labels among
    that many most likely tokens.
    """
    logits = albert.mlm_logits(params, model, states)
    labels, weights = batch["mlm_labels"], batch["mlm_weights"]
    losses = loss_terms.cross_entropy(logits, labels)
    term = LossTerm(jnp.sum(weights * losses), "mlm_weights", SMOOTHING)
    sums = {"mlm_correct": loss_terms.weighted_correct(logits, labels, weights)}
    if top_k > 1:
        label_logits = loss_terms.logit_at(logits, labels)[..., None]
        num_better = jnp.sum(logits > label_logits, axis=-1)
        sums[f"mlm_top{top_k}_correct"] = jnp.sum(weights * (num_better < top_k))
    return LossTerms({"mlm": term}, sums)
