"""Learning a classification from a teacher's labels and states (Hinton et al. 2015).

States of two networks are compared by how their tokens lie to one another, not one by one (Tung
and Mori 2019, "similarity-preserving"): so width and depth may differ and nothing has to be
learnt to compare them. The teacher's side comes as columns of the batch.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import TaskConfig
from albert_jax.model import albert
from albert_jax.objectives.loss_terms import Loss, LossTerm, LossTerms, cross_entropy
from albert_jax.tasks import heads
from albert_jax.tasks.losses import Batch, Forward, Params

POINTS = 4
"""Most depths at which states are compared."""


def compared_depths(num_layers: int, points: int) -> tuple[int, ...]:
    """The passes after which states are compared: equal parts of the depth, the last one whole.

    >>> compared_depths(12, 4), compared_depths(3, 2), compared_depths(1, 2)
    ((3, 6, 9, 12), (2, 3), (1, 1))
    """
    return tuple(math.ceil(num_layers * k / points) for k in range(1, points + 1))


def relations(states: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Cosines float32 [..., B, S, S] of each row's tokens [..., B, S, H] to one another.

    The mean of a row's tokens is taken off first: ALBERT's states all point one way, and what
    they share says nothing. 0 where one of the two is padding.
    """
    real = (segment_ids > 0).astype(jnp.float32)[..., None]
    states = states.astype(jnp.float32)
    mean = jnp.sum(states * real, -2, keepdims=True) / jnp.maximum(
        jnp.sum(real, -2, keepdims=True), 1.0
    )
    centred = (states - mean) * real
    # The square root has no gradient at 0, where padding lies.
    length = jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) + 1e-12)
    unit = centred / length
    return jnp.einsum("...sh,...th->...st", unit, unit)


def teacher_columns(
    forward: Forward, params: Params, batch: Batch, points: int
) -> dict[str, jax.Array]:
    """What a student reads: teacher_logits [B, C], and teacher_relations [B, points, S, S].

    With 0 points there are no relations.
    """
    hidden, each = albert.encode_all_layers(
        params, forward.model, batch, compute=forward.compute, backend=forward.backend
    )
    logits = heads.classify(params["head"], forward.pool(params, hidden, batch))
    if not points:
        return {"teacher_logits": logits}
    compared = _compared(each, batch["segment_ids"], forward, None, points)
    return {"teacher_logits": logits, "teacher_relations": jnp.moveaxis(compared, 0, 1)}


def distilled_loss(forward: Forward, config: TaskConfig) -> Loss:
    """Cross-entropies with the labels and with the teacher's, and squared differences of states.

    Terms "class", "teacher" (task.teacher_share of the two; at task.teacher_temperature, times
    its square as in the paper) and "states" (task.teacher_states), sum "example_correct".
    """
    share, heat = config.teacher_share, config.teacher_temperature

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        hidden, each = albert.encode_all_layers(
            params,
            forward.model,
            batch,
            compute=forward.compute,
            num_layers=num_layers,
            dropout=dropout,
            backend=forward.backend,
        )
        pooled = forward.pool(params, hidden, batch)
        logits = heads.classify(params["head"], pooled, dropout, config.head_dropout)
        weights, labels = batch["example_weights"], batch["labels"]
        theirs = jax.nn.log_softmax(batch["teacher_logits"] / heat)
        away = jnp.sum(jnp.exp(theirs) * (theirs - jax.nn.log_softmax(logits / heat)), -1)
        sums = {
            "class": (1 - share) * jnp.sum(weights * cross_entropy(logits, labels)),
            "teacher": share * heat**2 * jnp.sum(weights * away),
        }
        if "teacher_relations" in batch:
            wanted = jnp.moveaxis(batch["teacher_relations"], 1, 0)
            found = _compared(each, batch["segment_ids"], forward, num_layers, len(wanted))
            real = jnp.sum(batch["segment_ids"] > 0, -1)
            apart = jnp.sum(jnp.square(found - wanted), (-2, -1)) / jnp.maximum(real, 1) ** 2
            sums["states"] = config.teacher_states * jnp.sum(weights * jnp.mean(apart, 0))
        right = jnp.argmax(logits, -1) == labels
        return LossTerms(
            {name: LossTerm(total, "example_weights") for name, total in sums.items()},
            {"example_correct": jnp.sum(weights * right)},
        )

    return loss


def _compared(
    each: jax.Array, segment_ids: jax.Array, forward: Forward, num_layers: int | None, points: int
) -> jax.Array:
    """Relations [points, B, S, S] of the states after every pass [passes x inner, B, S, H]."""
    inner = forward.model.inner_group_num
    depths = compared_depths(num_layers or forward.model.num_hidden_layers, points)
    return relations(each[jnp.asarray([inner * depth - 1 for depth in depths])], segment_ids)
