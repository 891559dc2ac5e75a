"""The pretraining loss: the sum of the objectives that a phase's ObjectiveConfig asks for.

A new objective is a function like those of masked_lm.py and sentence_order.py, a field of
ObjectiveConfig, and a line in `pretraining_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

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
    objectives: list[Callable[..., LossTerms]] = [partial(masked_lm, top=top)]
    if (objective or ObjectiveConfig()).sentence_order != "none":
        objectives.append(sentence_order)

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
        result = LossTerms({}, {})
        for objective_terms in objectives:
            terms, sums = objective_terms(params, model, hidden, batch)
            result = LossTerms(result.terms | terms, result.sums | sums)
        return result

    return loss
