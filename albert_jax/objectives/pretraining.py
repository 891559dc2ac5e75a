"""Masked-language and sentence-order losses of ALBERT's pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import albert
from albert_jax.model.attention import XLA, Backend
from albert_jax.objectives.terms import Loss, LossTerm, LossTerms

MLM_SMOOTHING = 1e-5
"""Added to the number of masked tokens by the original (run_pretraining.py)."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax at the labels: float32 [..., C], int32 [...] -> float32 [...]."""
    return jax.nn.logsumexp(logits, axis=-1) - _at_label(logits, labels)


def _at_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, labels[..., None], axis=-1, mode="clip")[..., 0]


def pretraining_loss(
    model: ModelConfig, compute: ComputeConfig, backend: Backend = XLA, *, top: int = 1
) -> Loss:
    """The loss of pretraining rows for a model.

    Terms "mlm" (weights mlm_weights [B, P]) and "sop" (sop_weights [B, K]); sums "mlm_correct"
    and "sop_correct" count weighted right answers, and for `top` above 1 "mlm_top<top>_correct"
    the masked pieces among that many likeliest.
    """

    def loss(
        params: Mapping[str, Any],
        batch: Mapping[str, jax.Array],
        *,
        dropout: jax.Array | None,
        num_layers: int | None,
    ) -> LossTerms:
        hidden = albert.encode(
            params,
            model,
            batch,
            compute=compute,
            num_layers=num_layers,
            dropout=dropout,
            backend=backend,
        )
        mlm = albert.mlm_logits(params, model, hidden, batch["mlm_positions"])
        pooled = albert.pooled(params, model, hidden, batch["cls_positions"])
        sop = albert.sop_logits(params, model, pooled)
        terms, sums = {}, {}
        for name, logits in (("mlm", mlm), ("sop", sop)):
            labels, weights = batch[f"{name}_labels"], batch[f"{name}_weights"]
            total = jnp.sum(weights * cross_entropy(logits, labels))
            terms[name] = LossTerm(
                total, f"{name}_weights", MLM_SMOOTHING if name == "mlm" else 0.0
            )
            # The largest logit is computed for the loss anyway; an argmax would be one more
            # pass over the vocabulary, and a slow one.
            right = _at_label(logits, labels) >= jnp.max(logits, axis=-1)
            sums[f"{name}_correct"] = jnp.sum(weights * right)
        if top > 1:
            chosen = _at_label(mlm, batch["mlm_labels"])
            better = jnp.sum(mlm > chosen[..., None], axis=-1)
            sums[f"mlm_top{top}_correct"] = jnp.sum(batch["mlm_weights"] * (better < top))
        return LossTerms(terms, sums)

    return loss
