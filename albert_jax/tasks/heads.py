"""The heads of the task families: parameter trees and forward functions.

A head is a nested dict of float32 arrays that stands under "head" beside the encoder's
parameters; kernels are [in, out]. Functions take hidden states of the encoder (or its pooled
[CLS]) and return float32 logits. Legend: B rows, S tokens, G sequences of a row, H hidden
size, C classes or tags, Ks and Ke breadth of the span search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import LAYER_NORM_EPS
from albert_jax.model.dropout import HEAD, drop
from albert_jax.model.init import truncated_normal

Head = Mapping[str, Any]
"""Parameters of one head."""

HeadKind = Literal["classifier", "choice", "span", "conditioned_span", "tagger", "none"]

NEVER = 1e30
"""Taken off the logits of places that can be no answer (squad_utils.py)."""

ANSWER_RATE = 0.1
"""Dropout inside the answerability head while it is trained (run_squad_v2.py)."""

CLASSIFIER_RATE = 0.1
"""Dropout on the pooled [CLS] while a head is trained (paper, Table 14)."""


def head_shapes(kind: HeadKind, hidden_size: int, outputs: int) -> dict[str, Any]:
    """Shapes of a head's parameters; ``outputs`` counts classes or tags where there are some."""

    def dense(inputs: int, size: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
        return {"kernel": (inputs, size)} | ({"bias": (size,)} if bias else {})

    h = hidden_size
    match kind:
        case "classifier":
            return {"classifier": dense(h, outputs)}
        case "choice":
            return {"classifier": dense(h, 1)}
        case "span":
            return {"span": dense(h, 2)}
        case "tagger":
            return {"tagger": dense(h, outputs)}
        case "conditioned_span":
            return {
                "start": dense(h, 1),
                "end": {
                    "dense": dense(2 * h, h),
                    "layer_norm": {"scale": (h,), "bias": (h,)},
                    "output": dense(h, 1),
                },
                "answer": {"dense": dense(2 * h, h), "output": dense(h, 1, bias=False)},
            }
        case "none":
            return {}


def init_head(
    kind: HeadKind, hidden_size: int, outputs: int, seed: int, deviation: float = 0.02
) -> dict[str, Any]:
    """New parameters: kernels truncated normal, biases 0, scales 1; keyed by (seed, path)."""

    def build(shapes: dict[str, Any], path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, shape in shapes.items():
            here = f"{path}/{name}"
            if isinstance(shape, dict):
                made[name] = build(shape, here)
            elif name == "scale":
                made[name] = np.ones(shape, np.float32)
            elif name == "bias":
                made[name] = np.zeros(shape, np.float32)
            else:
                digest = hashlib.sha256(f"{seed}:{here}".encode()).digest()
                key = int.from_bytes(digest[:16], "little")
                made[name] = truncated_normal(
                    np.random.Generator(np.random.Philox(key=key)), shape, deviation
                )
        return made

    return build(head_shapes(kind, hidden_size, outputs), "head")


def classify(
    head: Head, pooled: jax.Array, keys: jax.Array | None = None, rate: float = CLASSIFIER_RATE
) -> jax.Array:
    """Logits [B, C] of the pooled [CLS] [B, H] (C 1: the score itself). ``keys`` [B]: dropout."""
    return _dense(head["classifier"], drop(pooled, keys, rate, HEAD)).astype(jnp.float32)


def choose(
    head: Head,
    pooled: jax.Array,
    choices: int,
    keys: jax.Array | None = None,
    rate: float = CLASSIFIER_RATE,
) -> jax.Array:
    """Logits [B, G] of the pooled [CLS] of all sequences [B * G, H], G = ``choices``."""
    return classify(head, pooled, keys, rate).reshape(-1, choices)


def span_logits(head: Head, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Start and end logits [B, S] each, independent of one another (squad_utils.py, v1)."""
    logits = _dense(head["span"], hidden).astype(jnp.float32)
    return logits[..., 0], logits[..., 1]


def tag_logits(
    head: Head, hidden: jax.Array, keys: jax.Array | None = None, rate: float = CLASSIFIER_RATE
) -> jax.Array:
    """Logits [B, S, C] of every token."""
    return _dense(head["tagger"], drop(hidden, keys, rate, HEAD)).astype(jnp.float32)


def mean_pool(hidden: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Mean of the hidden states [B, S, H] of real tokens -> float32 [B, H]; 0 without tokens."""
    real = (segment_ids > 0).astype(jnp.float32)[..., None]
    total = jnp.sum(hidden.astype(jnp.float32) * real, axis=1)
    return total / jnp.maximum(jnp.sum(real, axis=1), 1.0)


def normalise(vectors: jax.Array) -> jax.Array:
    """Vectors [..., H] of length 1; zero vectors stay zero, with a finite gradient."""
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class SpanScores(NamedTuple):
    """Training form of the conditioned span head."""

    start: jax.Array
    """Log-probabilities of the start [B, S]."""
    end: jax.Array
    """Log-probabilities of the end given the true start [B, S]."""
    unanswerable: jax.Array
    """Logit that there is no answer [B]."""


class SpanBeam(NamedTuple):
    """Prediction form of the conditioned span head, best first."""

    start: jax.Array
    """Log-probabilities of the best starts [B, Ks]."""
    start_places: jax.Array
    """Their places, int32 [B, Ks]."""
    end: jax.Array
    """Log-probabilities of the best ends given each start [B, Ks, Ke]."""
    end_places: jax.Array
    """Their places, int32 [B, Ks, Ke]."""
    unanswerable: jax.Array
    """Logit that there is no answer [B]."""


def conditioned_spans(
    head: Head,
    hidden: jax.Array,
    p_mask: jax.Array,
    cls_positions: jax.Array,
    start_positions: jax.Array,
    keys: jax.Array | None = None,
    rate: float = ANSWER_RATE,
) -> SpanScores:
    """Scores while training: the end is conditioned on the true start (squad_utils.py, v2).

    ``p_mask`` [B, S] is 1 at places without answers, ``cls_positions`` int32 [B, 1],
    ``start_positions`` int32 [B].
    """
    hidden = hidden.astype(jnp.float32)
    masked = _mask(_dense(head["start"], hidden)[..., 0], p_mask)
    at_start = jnp.take_along_axis(hidden, start_positions[:, None, None], axis=1, mode="clip")
    end = _mask(_end_logits(head["end"], hidden, at_start), p_mask)
    return SpanScores(
        jax.nn.log_softmax(masked),
        jax.nn.log_softmax(end),
        _answerability(head["answer"], hidden, masked, cls_positions, keys, rate),
    )


def search_spans(
    head: Head,
    hidden: jax.Array,
    p_mask: jax.Array,
    cls_positions: jax.Array,
    starts: int = 5,
    ends: int = 5,
) -> SpanBeam:
    """Scores while predicting: the best starts and, for each, the best ends (a beam search)."""
    hidden = hidden.astype(jnp.float32)
    masked = _mask(_dense(head["start"], hidden)[..., 0], p_mask)
    start, places = jax.lax.top_k(jax.nn.log_softmax(masked), starts)
    at_starts = jnp.take_along_axis(hidden, places[:, :, None], axis=1)

    def for_start(at_start: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = _mask(_end_logits(head["end"], hidden, at_start[:, None]), p_mask)
        end, end_places = jax.lax.top_k(jax.nn.log_softmax(logits), ends)
        return end, end_places

    end, end_places = jax.vmap(for_start, in_axes=1, out_axes=1)(at_starts)
    unanswerable = _answerability(head["answer"], hidden, masked, cls_positions, None, 0.0)
    return SpanBeam(start, places, end, end_places, unanswerable)


def _end_logits(head: Head, hidden: jax.Array, at_start: jax.Array) -> jax.Array:
    """Logits [B, S] of the end, from each place [B, S, H] and the start's state [B, 1, H]."""
    both = jnp.concatenate([hidden, jnp.broadcast_to(at_start, hidden.shape)], axis=-1)
    x = jnp.tanh(_dense(head["dense"], both))
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    x = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPS)
    x = x * head["layer_norm"]["scale"] + head["layer_norm"]["bias"]
    return _dense(head["output"], x)[..., 0]


def _answerability(
    head: Head,
    hidden: jax.Array,
    start_logits: jax.Array,
    cls_positions: jax.Array,
    keys: jax.Array | None,
    rate: float,
) -> jax.Array:
    expected = jnp.einsum("bs,bsh->bh", jax.nn.softmax(start_logits), hidden)
    cls = jnp.take_along_axis(hidden, cls_positions[:, :1, None], axis=1)[:, 0]
    x = jnp.tanh(_dense(head["dense"], jnp.concatenate([expected, cls], axis=-1)))
    return (drop(x, keys, rate, HEAD) @ head["output"]["kernel"])[:, 0]


def _mask(logits: jax.Array, p_mask: jax.Array) -> jax.Array:
    return logits * (1.0 - p_mask) - NEVER * p_mask


def _dense(layer: Head, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype)
