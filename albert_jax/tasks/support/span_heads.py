"""The heads and losses of question answering (squad_utils.py, v1 and v2).

B rows, S tokens, H hidden size, Ks starts of the beam and Ke ends for each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.model.dropout import HEAD, drop
from albert_jax.model.layers import layer_norm
from albert_jax.objectives.loss_terms import LossTerm, LossTerms, cross_entropy, logit_at
from albert_jax.tasks.support.encoder import Batch, Encoder, Params, dense
from albert_jax.tasks.support.rows import NEGATIVE


def conditioned_scores(
    encoder: Encoder, batch: Batch, rate: float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores for training, with the end conditioned on the true start (2.0).

    Returns log-probabilities of the start [B, S] and of the end after the true start [B, S], and
    the logit that there is no answer [B]. `rate` is the dropout rate inside the answerability head.
    """
    head, hidden = encoder.params["head"], encoder.hidden_states(batch).astype(jnp.float32)
    start = _masked(dense(head["start"], hidden)[..., 0], batch["p_mask"])
    positions = batch["start_positions"][:, None, None]
    at_start = jnp.take_along_axis(hidden, positions, axis=1, mode="clip")
    end = _masked(_end_logits(head["end"], hidden, at_start), batch["p_mask"])
    null = _unanswerable(head["answer"], hidden, start, batch, encoder.dropout, rate)
    return jax.nn.log_softmax(start), jax.nn.log_softmax(end), null


def search_spans(encoder: Encoder, batch: Batch, starts: int, ends: int) -> tuple[jax.Array, ...]:
    """The best starts and, for each, the best ends (2.0, a beam search).

    Returns log-probabilities [B, Ks] and positions int32 [B, Ks] of the starts, those of the ends
    [B, Ks, Ke], and the logit that there is no answer [B].
    """
    head, hidden = encoder.params["head"], encoder.hidden_states(batch).astype(jnp.float32)
    logits = _masked(dense(head["start"], hidden)[..., 0], batch["p_mask"])
    start, positions = jax.lax.top_k(jax.nn.log_softmax(logits), starts)
    at_starts = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)

    def ends_of(at_start: jax.Array) -> Any:
        end = _masked(_end_logits(head["end"], hidden, at_start[:, None]), batch["p_mask"])
        return jax.lax.top_k(jax.nn.log_softmax(end), ends)

    end, end_positions = jax.vmap(ends_of, in_axes=1, out_axes=1)(at_starts)
    null = _unanswerable(head["answer"], hidden, logits, batch, None, 0.0)
    return start, positions, end, end_positions, null


def _end_logits(head: Params, hidden: jax.Array, at_start: jax.Array) -> jax.Array:
    """Logits [B, S] of the end, from each state [B, S, H] and the start's state [B, 1, H]."""
    both = jnp.concatenate([hidden, jnp.broadcast_to(at_start, hidden.shape)], axis=-1)
    x = jnp.tanh(dense(head["dense"], both))
    norm = head["layer_norm"]
    return dense(head["output"], layer_norm(x, norm["scale"], norm["bias"]))[..., 0]


def _unanswerable(
    head: Params,
    hidden: jax.Array,
    start_logits: jax.Array,
    batch: Batch,
    dropout: Any,
    rate: float,
) -> jax.Array:
    expected = jnp.einsum("bs,bsh->bh", jax.nn.softmax(start_logits), hidden)
    cls = jnp.take_along_axis(hidden, batch["cls_positions"][:, :1, None], axis=1)[:, 0]
    x = jnp.tanh(dense(head["dense"], jnp.concatenate([expected, cls], axis=-1)))
    return (drop(x, dropout, rate, HEAD) @ head["output"]["kernel"])[:, 0]


def _masked(logits: jax.Array, p_mask: jax.Array) -> jax.Array:
    return logits * (1.0 - p_mask) + NEGATIVE * p_mask


def span_loss(start: jax.Array, end: jax.Array, batch: Batch) -> LossTerms:
    """Half the cross-entropies of start and end logits [B, S] (1.1)."""
    terms = {
        "start": _half(batch, cross_entropy(start, batch["start_positions"])),
        "end": _half(batch, cross_entropy(end, batch["end_positions"])),
    }
    return LossTerms(terms, {})


def conditioned_span_loss(encoder: Encoder, batch: Batch, rate: float) -> LossTerms:
    """Half the losses of the start, of the end after the true start, and of answerability (2.0)."""
    start, end, null = conditioned_scores(encoder, batch, rate)
    target = batch["is_impossible"].astype(jnp.float32)
    terms = {
        "start": _half(batch, -logit_at(start, batch["start_positions"])),
        "end": _half(batch, -logit_at(end, batch["end_positions"])),
        "answerable": _half(batch, jax.nn.softplus(null) - target * null),
    }
    correct = batch["example_weights"] * ((null > 0) == (target > 0.5))
    return LossTerms(terms, {"example_correct": jnp.sum(correct)})


def _half(batch: Batch, losses: jax.Array) -> LossTerm:
    """A term that counts half, as the original averages two losses."""
    return LossTerm(0.5 * jnp.sum(batch["example_weights"] * losses), "example_weights")


def onnx_search(graph: Any, hidden: str, starts: int, ends: int) -> list[str]:
    """`search_spans` in an ONNX graph after the hidden states; the names of its outputs."""
    g, size = graph, graph.model.hidden_size
    allowed = g.op("Sub", g.constant(1, np.float32), "p_mask")
    penalty = g.op("Mul", "p_mask", g.constant(NEGATIVE, np.float32))

    def masked(logits: str, allowed: str, penalty: str) -> str:
        return g.op("Add", g.op("Mul", logits, allowed), penalty)

    logits = masked(g.take(g.dense(hidden, "head/start"), 0, 2), allowed, penalty)
    log_probs = g.op("LogSoftmax", logits, axis=-1)
    start, positions = g.op("TopK", log_probs, g.constant([starts]), outputs=2, axis=-1)
    indices = g.op("Unsqueeze", positions, g.constant([2]))
    at_starts = g.op("GatherND", hidden, indices, batch_dims=1)
    # The kernel takes [state, state of the start]: two products instead of one over all pairs.
    kernel = g.weight("head/end/dense/kernel")
    of_state, of_start = g.op("Split", kernel, g.constant([size, size]), outputs=2, axis=0)
    x = g.op("Add", g.op("MatMul", hidden, of_state), g.weight("head/end/dense/bias"))
    x = g.op("Unsqueeze", x, g.constant([1]))
    shift = g.op("Unsqueeze", g.op("MatMul", at_starts, of_start), g.constant([2]))
    x = g.norm(g.op("Tanh", g.op("Add", x, shift)), "head/end/layer_norm")
    end_logits = g.take(g.dense(x, "head/end/output"), 0, 3)
    wide = [g.op("Unsqueeze", name, g.constant([1])) for name in (allowed, penalty)]
    log_probs = g.op("LogSoftmax", masked(end_logits, *wide), axis=-1)
    end, end_positions = g.op("TopK", log_probs, g.constant([ends]), outputs=2, axis=-1)
    probs = g.op("Unsqueeze", g.op("Softmax", logits, axis=-1), g.constant([1]))
    expected = g.op("Squeeze", g.op("MatMul", probs, hidden), g.constant([1]))
    both = g.op("Concat", expected, g.take(hidden, 0, 1), axis=-1)
    x = g.op("Tanh", g.dense(both, "head/answer/dense"))
    null = g.take(g.dense(x, "head/answer/output"), 0, 1)
    return [start, positions, end, end_positions, null]
