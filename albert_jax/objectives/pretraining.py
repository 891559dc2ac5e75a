"""The pretraining loss: masked-language modeling plus sentence-order (or next-sentence) prediction.

A new objective is a file like masked_lm.py, a field of ObjectiveConfig, and a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ComputeConfig, ModelConfig, ObjectiveConfig
from albert_jax.model import albert
from albert_jax.model.attention import XLA, Backend
from albert_jax.objectives.loss_terms import Loss, LossTerms
from albert_jax.objectives.masked_lm import masked_lm
from albert_jax.objectives.sentence_order import sentence_order


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
        positions = [batch["mlm_positions"]] + [batch["cls_positions"]] * has_order
        states = albert.encode(
            params, model, batch,
            compute=compute, num_layers=num_layers, dropout=dropout, backend=backend,
            positions=jnp.concatenate(positions, axis=1),
        )  # fmt: skip
        masked = batch["mlm_positions"].shape[1]
        result = masked_lm(params, model, states[:, :masked], batch, top=top)
        if has_order:
            order = sentence_order(params, model, states[:, masked:], batch)
            result = LossTerms(result.terms | order.terms, result.sums | order.sums)
        return result

    return loss
