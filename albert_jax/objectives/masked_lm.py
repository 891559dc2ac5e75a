"""Masked-language modeling: predict the tokens at the masked positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig
from albert_jax.model import albert
from albert_jax.objectives.loss_terms import (
    LossTerm,
    LossTerms,
    cross_entropy,
    logit_at,
    weighted_correct,
)

SMOOTHING = 1e-5
"""Added to the number of masked tokens by the original (run_pretraining.py)."""


def masked_lm(
    params: Mapping[str, Any],
    model: ModelConfig,
    hidden: jax.Array,
    batch: Mapping[str, jax.Array],
    *,
    top: int = 1,
) -> LossTerms:
    """The term "mlm" over the masked positions of a batch.

    Args:
      params: The parameters.
      model: The network.
      hidden: Hidden states [B, S, H].
      batch: Columns mlm_positions, mlm_labels and mlm_weights [B, P].
      top: Above 1, the masked tokens among that many most likely ones are counted too.

    Returns:
      The term and the weighted sums "mlm_correct" and, for `top` above 1, "mlm_top<top>_correct".
    """
    logits = albert.mlm_logits(params, model, hidden, batch["mlm_positions"])
    labels, weights = batch["mlm_labels"], batch["mlm_weights"]
    term = LossTerm(jnp.sum(weights * cross_entropy(logits, labels)), "mlm_weights", SMOOTHING)
    sums = {"mlm_correct": weighted_correct(logits, labels, weights)}
    if top > 1:
        num_better = jnp.sum(logits > logit_at(logits, labels)[..., None], axis=-1)
        sums[f"mlm_top{top}_correct"] = jnp.sum(weights * (num_better < top))
    return LossTerms({"mlm": term}, sums)
