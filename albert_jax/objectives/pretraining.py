"""The pretraining loss: masked-language modeling plus sentence-order (or next-sentence) prediction.

A new objective is a function like `masked_lm` and `sentence_order`, a field of ObjectiveConfig, and
a line in `pretraining_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ComputeConfig, ModelConfig, ObjectiveConfig
from albert_jax.model import albert
from albert_jax.model.attention import XLA, Backend
from albert_jax.objectives import loss_terms
from albert_jax.objectives.loss_terms import Loss, LossTerm, LossTerms

SMOOTHING = 1e-5
"""Added to the number of masked tokens by the original (run_pretraining.py)."""


def pretraining_loss(
    model: ModelConfig,
    compute: ComputeConfig,
    backend: Backend = XLA,
    *,
    objective: ObjectiveConfig | None = None,
    top: int = 1,
) -> Loss:
    """The loss of pretraining rows, by default of ObjectiveConfig(); for `top` see `masked_lm`."""
    has_order = (objective or ObjectiveConfig()).sentence_order != "none"

    def loss(
        params: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        dropout: jax.Array | None,
        num_layers: int | None,
    ) -> LossTerms:
        hidden = albert.encode(
            params, model, batch,
            compute=compute, num_layers=num_layers, dropout=dropout, backend=backend,
        )  # fmt: skip
        result = masked_lm(params, model, hidden, batch, top=top)
        if has_order:
            order = sentence_order(params, model, hidden, batch)
            result = LossTerms(result.terms | order.terms, result.sums | order.sums)
        return result

    return loss


def masked_lm(
    params: Mapping[str, Any],
    model: ModelConfig,
    hidden: jax.Array,
    batch: Mapping[str, jax.Array],
    *,
    top: int = 1,
) -> LossTerms:
    """The term "mlm" and the weighted sum "mlm_correct" over the masked positions of a batch.

    `hidden` is [B, S, H]; the columns mlm_positions, mlm_labels and mlm_weights are [B, P]. For
    `top` above 1, "mlm_top<top>_correct" counts the labels among that many most likely tokens.
    """
    logits = albert.mlm_logits(params, model, hidden, batch["mlm_positions"])
    labels, weights = batch["mlm_labels"], batch["mlm_weights"]
    losses = loss_terms.cross_entropy(logits, labels)
    term = LossTerm(jnp.sum(weights * losses), "mlm_weights", SMOOTHING)
    sums = {"mlm_correct": loss_terms.weighted_correct(logits, labels, weights)}
    if top > 1:
        label_logits = loss_terms.logit_at(logits, labels)[..., None]
        num_better = jnp.sum(logits > label_logits, axis=-1)
        sums[f"mlm_top{top}_correct"] = jnp.sum(weights * (num_better < top))
    return LossTerms({"mlm": term}, sums)


def sentence_order(
    params: Mapping[str, Any], model: ModelConfig, hidden: jax.Array, batch: Mapping[str, jax.Array]
) -> LossTerms:
    """The term "sop" over the pairs of a batch, and the weighted sum "sop_correct".

    `hidden` is [B, S, H]; the columns cls_positions, sop_labels and sop_weights are [B, K].
    """
    pooled = albert.pooled(params, model, hidden, batch)
    logits = albert.sop_logits(params, model, pooled)
    labels, weights = batch["sop_labels"], batch["sop_weights"]
    losses = loss_terms.cross_entropy(logits, labels)
    term = LossTerm(jnp.sum(weights * losses), "sop_weights")
    sums = {"sop_correct": loss_terms.weighted_correct(logits, labels, weights)}
    return LossTerms({"sop": term}, sums)
