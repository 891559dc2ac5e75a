"""The losses of the task families: sums per term and the names of their weights.

Each ``*_loss`` builds the loss of one family for a model; ``*_outputs`` is the forward pass of
its prediction. Both read batches of the family's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import albert
from albert_jax.model.attention import XLA, Backend
from albert_jax.objectives.loss_terms import Loss, LossTerm, LossTerms, cross_entropy
from albert_jax.tasks import heads

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Pooling = Literal["cls", "mean"]

INPUTS = ("input_ids", "token_type_ids", "segment_ids", "positions", "cls_positions")
"""The columns of a batch that the encoder and its heads read."""


class Forward:
    """The encoder with a model's settings, as the families use it."""

    def __init__(
        self,
        model: ModelConfig,
        compute: ComputeConfig,
        backend: Backend = XLA,
        pooling: Pooling = "cls",
    ):
        self.model, self.compute, self.backend, self.pooling = model, compute, backend, pooling

    def hidden(
        self, params: Params, batch: Batch, keys: jax.Array | None, num_layers: int | None
    ) -> jax.Array:
        """Hidden states [B, S, H] of plain rows."""
        return albert.encode(
            params,
            self.model,
            batch,
            compute=self.compute,
            num_layers=num_layers,
            dropout=keys,
            backend=self.backend,
        )

    def pooled(
        self, params: Params, batch: Batch, keys: jax.Array | None, num_layers: int | None
    ) -> jax.Array:
        """One vector [B, H] per row: the pooled [CLS], or the mean of the real tokens."""
        return self.pool(params, self.hidden(params, batch, keys, num_layers), batch)

    def pool(self, params: Params, hidden: jax.Array, batch: Batch) -> jax.Array:
        """The same of hidden states [B, S, H] that are there already."""
        if self.pooling == "mean":
            return heads.mean_pool(hidden, batch["segment_ids"])
        return albert.pooled(params, self.model, hidden, batch["cls_positions"])[:, 0]


def group_keys(keys: jax.Array | None, size: int) -> jax.Array | None:
    """Dropout keys of the sequences [B * size] of rows with keys [B]."""
    if keys is None:
        return None
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
    return fold(keys, jnp.arange(size)).reshape(-1)


def flat_groups(batch: Batch) -> dict[str, jax.Array]:
    """The inputs of grouped rows [B, G, S] as plain rows [B * G, S]."""
    return {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in INPUTS}


def classification_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> jax.Array:
    """Logits [B, C]; for regression the scores [B, 1]."""
    return heads.classify(params["head"], forward.pooled(params, batch, None, num_layers))


def classification_loss(forward: Forward, rate: float = heads.CLASSIFIER_RATE) -> Loss:
    """Cross-entropy of the classes; term "class", sum "example_correct"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        pooled = forward.pooled(params, batch, dropout, num_layers)
        logits = heads.classify(params["head"], pooled, dropout, rate)
        weights = batch["example_weights"]
        right = jnp.argmax(logits, -1) == batch["labels"]
        total = jnp.sum(weights * cross_entropy(logits, batch["labels"]))
        return LossTerms(
            {"class": LossTerm(total, "example_weights")},
            {"example_correct": jnp.sum(weights * right)},
        )

    return loss


def regression_loss(forward: Forward, rate: float = heads.CLASSIFIER_RATE) -> Loss:
    """Squared error of the score (classifier_utils.py, STS-B); term "squared_error"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        pooled = forward.pooled(params, batch, dropout, num_layers)
        scores = heads.classify(params["head"], pooled, dropout, rate)[:, 0]
        total = jnp.sum(batch["example_weights"] * jnp.square(scores - batch["labels"]))
        return LossTerms({"squared_error": LossTerm(total, "example_weights")}, {})

    return loss


def choice_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> jax.Array:
    """Logits [B, G]; places without a choice are far below all others."""
    return _choice_logits(forward, params, batch, None, num_layers, 0.0)


def choice_loss(forward: Forward, rate: float = heads.CLASSIFIER_RATE) -> Loss:
    """Cross-entropy over the choices of a row; term "choice", sum "example_correct"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        logits = _choice_logits(forward, params, batch, dropout, num_layers, rate)
        weights = batch["example_weights"]
        right = jnp.argmax(logits, -1) == batch["labels"]
        total = jnp.sum(weights * cross_entropy(logits, batch["labels"]))
        return LossTerms(
            {"choice": LossTerm(total, "example_weights")},
            {"example_correct": jnp.sum(weights * right)},
        )

    return loss


def _choice_logits(
    forward: Forward, params: Params, batch: Batch, keys: Any, num_layers: int | None, rate: float
) -> jax.Array:
    size = batch["input_ids"].shape[1]
    keys = group_keys(keys, size)
    pooled = forward.pooled(params, flat_groups(batch), keys, num_layers)
    logits = heads.choose(params["head"], pooled, size, keys, rate)
    # A filler row has no choice at all: its logits stay as they are, its weight is 0.
    some = jnp.any(batch["choice_mask"] > 0, axis=1, keepdims=True)
    return jnp.where(some & (batch["choice_mask"] == 0), -heads.NEVER, logits)


def span_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Start and end logits [B, S] of the simple span head."""
    return heads.span_logits(params["head"], forward.hidden(params, batch, None, num_layers))


def span_loss(forward: Forward) -> Loss:
    """Half the cross-entropies of start and end (SQuAD 1.1); terms "start", "end"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        hidden = forward.hidden(params, batch, dropout, num_layers)
        start, end = heads.span_logits(params["head"], hidden)
        weights = batch["example_weights"]
        return LossTerms(
            {
                "start": _half(weights, cross_entropy(start, batch["start_positions"])),
                "end": _half(weights, cross_entropy(end, batch["end_positions"])),
            },
            {},
        )

    return loss


def conditioned_span_outputs(
    forward: Forward,
    params: Params,
    batch: Batch,
    num_layers: int | None = None,
    starts: int = 5,
    ends: int = 5,
) -> heads.SpanBeam:
    """The best spans and the logit of no answer (SQuAD 2.0)."""
    hidden = forward.hidden(params, batch, None, num_layers)
    return heads.search_spans(
        params["head"], hidden, batch["p_mask"], batch["cls_positions"], starts, ends
    )


def conditioned_span_loss(forward: Forward, rate: float = heads.ANSWER_RATE) -> Loss:
    """Half of start, end and answerability each; terms "start", "end", "answerable"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        hidden = forward.hidden(params, batch, dropout, num_layers)
        scores = heads.conditioned_spans(
            params["head"],
            hidden,
            batch["p_mask"],
            batch["cls_positions"],
            batch["start_positions"],
            dropout,
            rate,
        )
        weights, target = batch["example_weights"], batch["is_impossible"].astype(jnp.float32)
        logit = scores.unanswerable
        binary = jax.nn.softplus(logit) - target * logit
        return LossTerms(
            {
                "start": _half(weights, -_at(scores.start, batch["start_positions"])),
                "end": _half(weights, -_at(scores.end, batch["end_positions"])),
                "answerable": _half(weights, binary),
            },
            {"example_correct": jnp.sum(weights * ((logit > 0) == (target > 0.5)))},
        )

    return loss


def tag_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> jax.Array:
    """Tag logits [B, S, C]."""
    return heads.tag_logits(params["head"], forward.hidden(params, batch, None, num_layers))


def tag_loss(forward: Forward, rate: float = heads.CLASSIFIER_RATE) -> Loss:
    """Cross-entropy of the tags of first pieces; term "tag", sum "label_correct"."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        hidden = forward.hidden(params, batch, dropout, num_layers)
        logits = heads.tag_logits(params["head"], hidden, dropout, rate)
        weights = batch["label_weights"]
        right = jnp.argmax(logits, -1) == batch["labels"]
        total = jnp.sum(weights * cross_entropy(logits, batch["labels"]))
        return LossTerms(
            {"tag": LossTerm(total, "label_weights")}, {"label_correct": jnp.sum(weights * right)}
        )

    return loss


def embedding_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> jax.Array:
    """Mean-pooled vectors of length 1: [B, H] of plain rows, [B, G, H] of grouped ones."""
    grouped = batch["input_ids"].ndim == 3
    flat = flat_groups(batch) if grouped else batch
    hidden = forward.hidden(params, flat, None, num_layers)
    vectors = heads.normalise(heads.mean_pool(hidden, flat["segment_ids"]))
    return vectors.reshape(*batch["input_ids"].shape[:-1], -1)


def contrastive_loss(forward: Forward, temperature: float = 0.05) -> Loss:
    """Each text finds its partner among the other side's texts of its own row.

    Rows hold pairs at sequences 2p and 2p + 1; both directions are averaged. Term "pair"
    (weights pair_weights [B, G]), sum "pair_correct".
    """

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        rows, size, _ = batch["input_ids"].shape
        flat = flat_groups(batch)
        hidden = forward.hidden(params, flat, group_keys(dropout, size), num_layers)
        vectors = heads.normalise(heads.mean_pool(hidden, flat["segment_ids"]))
        sides = vectors.reshape(rows, size // 2, 2, -1)
        logits = jnp.einsum("bgh,bkh->bgk", sides[:, :, 0], sides[:, :, 1]) / temperature
        weights = batch["pair_weights"]
        # Places without a pair are no negatives; weightless rows keep finite logits.
        absent = (weights == 0) & jnp.any(weights > 0, axis=1, keepdims=True)
        own = jnp.broadcast_to(jnp.arange(size // 2), weights.shape)
        there = cross_entropy(jnp.where(absent[:, None, :], -heads.NEVER, logits), own)
        back = cross_entropy(
            jnp.where(absent[:, None, :], -heads.NEVER, jnp.swapaxes(logits, 1, 2)), own
        )
        # A weightless place compares itself with nothing: its term may be huge, never NaN.
        each = jnp.where(weights > 0, (there + back) / 2, 0.0)
        right = jnp.argmax(jnp.where(absent[:, None, :], -heads.NEVER, logits), -1) == own
        return LossTerms(
            {"pair": LossTerm(jnp.sum(weights * each), "pair_weights")},
            {"pair_correct": jnp.sum(weights * right)},
        )

    return loss


def canvas_outputs(
    forward: Forward, params: Params, batch: Batch, num_layers: int | None = None
) -> jax.Array:
    """Float32 MLM logits [B, P, V] at mlm_positions."""
    hidden = forward.hidden(params, batch, None, num_layers)
    return albert.mlm_logits(params, forward.model, hidden, batch["mlm_positions"])


def canvas_loss(forward: Forward) -> Loss:
    """Cross-entropy at the masked places of the canvas; term "canvas" (mlm_weights [B, P])."""

    def loss(params: Params, batch: Batch, *, dropout: Any, num_layers: int | None) -> LossTerms:
        hidden = forward.hidden(params, batch, dropout, num_layers)
        logits = albert.mlm_logits(params, forward.model, hidden, batch["mlm_positions"])
        weights, labels = batch["mlm_weights"], batch["mlm_labels"]
        total = jnp.sum(weights * cross_entropy(logits, labels))
        right = jnp.argmax(logits, -1) == labels
        return LossTerms(
            {"canvas": LossTerm(total, "mlm_weights")}, {"mlm_correct": jnp.sum(weights * right)}
        )

    return loss


def _half(weights: jax.Array, values: jax.Array) -> LossTerm:
    return LossTerm(0.5 * jnp.sum(weights * values), "example_weights")


def _at(log_probs: jax.Array, places: jax.Array) -> jax.Array:
    return jnp.take_along_axis(log_probs, places[:, None], axis=1, mode="clip")[:, 0]
