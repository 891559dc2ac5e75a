"""The sentence-order objective (paper, section 3.1); next-sentence prediction has the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig
from albert_jax.model import albert
from albert_jax.objectives import loss_terms
from albert_jax.objectives.loss_terms import LossTerm, LossTerms


def sentence_order(
    params: Mapping[str, Any], model: ModelConfig, states: jax.Array, batch: Mapping[str, jax.Array]
) -> LossTerms:
    """The term "sop" over the pairs of a batch, and the weighted sum "sop_correct".

    `states` [B, K, H] are the hidden states at cls_positions; the columns sop_labels and
    sop_weights are [B, K].
    """
    logits = albert.sop_logits(params, model, albert.apply_pooler(params, model, states))
    labels, weights = batch["sop_labels"], batch["sop_weights"]
    losses = loss_terms.cross_entropy(logits, labels)
    term = LossTerm(jnp.sum(weights * losses), "sop_weights")
    sums = {"sop_correct": loss_terms.weighted_correct(logits, labels, weights)}
    return LossTerms({"sop": term}, sums)
