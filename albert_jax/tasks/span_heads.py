"""The heads of question answering (squad_utils.py, v1 and v2): scores of starts and ends.

B rows, S tokens, H hidden size, Ks starts of the beam and Ke ends for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import LAYER_NORM_EPS
from albert_jax.model.dropout import HEAD, drop
from albert_jax.objectives.loss_terms import LossTerm, LossTerms
from albert_jax.tasks.encoder import NEGATIVE, dense

Head = Mapping[str, Any]
Batch = Mapping[str, jax.Array]


def span_logits(head: Head, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Start and end logits [B, S], independent of one another (1.1)."""
    logits = dense(head["span"], hidden).astype(jnp.float32)
    return logits[..., 0], logits[..., 1]


def conditioned_scores(
    head: Head, hidden: jax.Array, batch: Batch, dropout: jax.Array | None, rate: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores for training, with the end conditioned on the true start (2.0).

    Returns log-probabilities of the start [B, S], of the end given the true start [B, S], and the
    logit that there is no answer [B].
    """
    hidden = hidden.astype(jnp.float32)
    start = _masked(dense(head["start"], hidden)[..., 0], batch["p_mask"])
    positions = batch["start_positions"][:, None, None]
    at_start = jnp.take_along_axis(hidden, positions, axis=1, mode="clip")
    end = _masked(_end_logits(head["end"], hidden, at_start), batch["p_mask"])
    null = _unanswerable(head["answer"], hidden, start, batch, dropout, rate)
    return jax.nn.log_softmax(start), jax.nn.log_softmax(end), null


def search_spans(
    head: Head, hidden: jax.Array, batch: Batch, starts: int, ends: int
) -> tuple[jax.Array, ...]:
    """The best starts and, for each, the best ends (2.0, a beam search).

    Returns log-probabilities [B, Ks] and positions int32 [B, Ks] of the starts, those of the ends
    [B, Ks, Ke], and the logit that there is no answer [B].
    """
    hidden = hidden.astype(jnp.float32)
    logits = _masked(dense(head["start"], hidden)[..., 0], batch["p_mask"])
    start, positions = jax.lax.top_k(jax.nn.log_softmax(logits), starts)
    at_starts = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)

    def ends_of(at_start: jax.Array) -> Any:
        end = _masked(_end_logits(head["end"], hidden, at_start[:, None]), batch["p_mask"])
        return jax.lax.top_k(jax.nn.log_softmax(end), ends)

    end, end_positions = jax.vmap(ends_of, in_axes=1, out_axes=1)(at_starts)
    null = _unanswerable(head["answer"], hidden, logits, batch, None, 0.0)
    return start, positions, end, end_positions, null


def half_terms(weights: jax.Array, **losses: jax.Array) -> LossTerms:
    """Terms that each count half, as the original averages two losses."""
    terms = {
        name: LossTerm(0.5 * jnp.sum(weights * values), "example_weights")
        for name, values in losses.items()
    }
    return LossTerms(terms, {})


def _end_logits(head: Head, hidden: jax.Array, at_start: jax.Array) -> jax.Array:
    """Logits [B, S] of the end, from each state [B, S, H] and the start's state [B, 1, H]."""
    both = jnp.concatenate([hidden, jnp.broadcast_to(at_start, hidden.shape)], axis=-1)
    x = jnp.tanh(dense(head["dense"], both))
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centered), axis=-1, keepdims=True)
    x = centered * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    x = x * head["layer_norm"]["scale"] + head["layer_norm"]["bias"]
    return dense(head["output"], x)[..., 0]


def _unanswerable(
    head: Head,
    hidden: jax.Array,
    start_logits: jax.Array,
    batch: Batch,
    dropout: jax.Array | None,
    rate: float,
) -> jax.Array:
    expected = jnp.einsum("bs,bsh->bh", jax.nn.softmax(start_logits), hidden)
    cls = jnp.take_along_axis(hidden, batch["cls_positions"][:, :1, None], axis=1)[:, 0]
    x = jnp.tanh(dense(head["dense"], jnp.concatenate([expected, cls], axis=-1)))
    return (drop(x, dropout, rate, HEAD) @ head["output"]["kernel"])[:, 0]


def _masked(logits: jax.Array, p_mask: jax.Array) -> jax.Array:
    return logits * (1.0 - p_mask) + NEGATIVE * p_mask
