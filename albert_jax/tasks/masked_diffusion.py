"""Generation by masked diffusion: a canvas of [MASK] behind the source, filled in rounds.

A row is [CLS] source [SEP] canvas; the canvas holds the target, one end-of-text id and end-of-
text to its tail, so that length is learnt too. While training, the share of masked canvas
places is uniform between 0 and 1 per row, and some rows are masked as a whole. While decoding,
each round keeps the places where the model is most confident. End-of-text is [SEP], which
every vocabulary has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.examples import SourceTarget
from albert_jax.tasks.old_features import Batch, Encoder, Tokens, encode_all, sequence_rows

FULL_SHARE = 0.25
"""Share of training rows whose canvas is masked as a whole."""

Logits = Callable[[Batch], np.ndarray]
"""A batch to float logits [B, P, V] at its mlm_positions."""


@dataclass(frozen=True)
class CanvasFeature:
    """Ids of the source, [CLS] and last [SEP] included, and of the whole canvas."""

    source: np.ndarray
    canvas: np.ndarray


def canvas_features(
    encoder: Encoder,
    examples: Sequence[SourceTarget],
    length: int,
    canvas: int,
) -> list[CanvasFeature]:
    """Features of pairs for rows of ``length`` with ``canvas`` places (a target not known: empty).

    Turns of a dialogue are parted by [SEP]; a source too long loses its oldest tokens. DataError
    for a target that does not fit a canvas with its end.
    """
    if not 2 <= canvas <= length - 2:
        raise ConfigError(
            f"task.canvas {canvas} must lie between 2 and {length - 2} in rows of {length}"
        )
    texts = [text for x in examples for text in (*x.source, *([x.target] if x.target else []))]
    ids = encode_all(encoder, texts)
    room = length - canvas - 2
    found = []
    for example in examples:
        turns: list[int] = []
        for number, turn in enumerate(example.source):
            turns += ([encoder.sep_id] if number else []) + ids(turn).tolist()
        turns = turns[len(turns) - room :] if len(turns) > room else turns
        source = np.array([encoder.cls_id, *turns, encoder.sep_id], np.int32)
        target = ids(example.target) if example.target else np.zeros(0, np.int32)
        if len(target) >= canvas:
            raise DataError(
                f"{example.where}: the target has {len(target)} tokens and needs one more for "
                f"its end, but task.canvas is {canvas}: raise it or shorten the target"
            )
        filled = np.full(canvas, encoder.sep_id, np.int32)
        filled[: len(target)] = target
        found.append(CanvasFeature(source, filled))
    return found


def canvas_rows(
    features: Sequence[CanvasFeature],
    canvases: np.ndarray,
    length: int,
    rows: int,
) -> Batch:
    """Rows that show ``canvases`` int32 [len(features), C] behind the sources.

    mlm_positions [rows, C] are the canvas places; labels and weights stay 0.
    """
    sequences = [
        Tokens(np.concatenate((feature.source, canvas)), len(feature.source))
        for feature, canvas in zip(features, canvases, strict=True)
    ]
    batch = sequence_rows(sequences, length, rows)
    size = canvases.shape[1]
    batch["mlm_positions"] = np.zeros((rows, size), np.int32)
    batch["mlm_labels"] = np.zeros((rows, size), np.int32)
    batch["mlm_weights"] = np.zeros((rows, size), np.float32)
    for i, sequence in enumerate(sequences):
        batch["mlm_positions"][i] = sequence.first + np.arange(size)
    return batch


def canvas_batch(
    encoder: Encoder,
    features: Sequence[CanvasFeature],
    length: int,
    rows: int,
    generator: np.random.Generator,
    *,
    full_share: float = FULL_SHARE,
    end_weight: float = 0.3,
) -> Batch:
    """Training rows: masked canvas places bear labels and weights.

    A row's rate is uniform in (0, 1], or 1 with probability ``full_share``; at least one place
    is masked. The end-of-text ids behind the first weigh ``end_weight``, for they are easy.
    """
    true = np.stack([feature.canvas for feature in features])
    count, size = true.shape
    rates = np.where(generator.random(count) < full_share, 1.0, 1.0 - generator.random(count))
    masked_count = np.maximum(1, np.rint(rates * size)).astype(np.int64)
    order = np.argsort(generator.random((count, size)), axis=1)
    masked = np.argsort(order, axis=1) < masked_count[:, None]
    shown = np.where(masked, encoder.mask_id, true).astype(np.int32)
    batch = canvas_rows(features, shown, length, rows)
    ended = true == encoder.sep_id
    tail = ended & np.concatenate([np.zeros((count, 1), bool), ended[:, :-1]], axis=1)
    batch["mlm_labels"][:count] = np.where(masked, true, 0)
    batch["mlm_weights"][:count] = masked * np.where(tail, end_weight, 1.0)
    return batch


@dataclass(frozen=True)
class Decoded:
    """The ids of each row up to its end, and the canvas after each round [R, B, C]."""

    ids: tuple[np.ndarray, ...]
    rounds: tuple[np.ndarray, ...]


def decode(
    encoder: Encoder,
    features: Sequence[CanvasFeature],
    logits: Logits,
    length: int,
    rows: int,
    *,
    rounds: int = 8,
    temperature: float = 0.0,
    seed: int = 0,
    given: np.ndarray | None = None,
) -> Decoded:
    """Fills canvases in at most ``rounds`` forward passes (the forward is compiled once).

    Each round fills the masked places where the best id is most probable, an equal share of
    what is masked at the start; what is filled stays. ``temperature`` above 0 draws ids instead
    of taking the best. ``given`` int32 [B, C] fixes places (infilling): ids other than [MASK].
    Special ids are never written, but for end-of-text.
    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}: it must be at least 1")
    size = len(features[0].canvas)
    rounds = min(rounds, size)  # Each fills a place or more.
    canvas = np.full((len(features), size), encoder.mask_id, np.int32)
    if given is not None:
        canvas[:] = given
    generator = np.random.Generator(np.random.Philox(key=seed))
    total = (canvas == encoder.mask_id).sum(axis=1)
    shown = []
    for step in range(1, rounds + 1):
        open_places = canvas == encoder.mask_id
        if not open_places.any():
            break
        batch = canvas_rows(features, canvas, length, rows)
        scores = np.array(logits(batch)[: len(features)], np.float64)
        for special in (encoder.mask_id, encoder.pad_id, encoder.cls_id):
            scores[..., special] = -np.inf
        ids, confidence = _choose(scores, temperature, generator)
        # Cumulative quotas spread the places evenly, and the last round fills all that is left.
        keep = (total * (rounds - step)) // rounds
        fill = np.maximum(open_places.sum(axis=1) - keep, 0)
        place_rank = np.argsort(
            np.argsort(np.where(open_places, -confidence, np.inf), axis=1, kind="stable"), axis=1
        )
        canvas = np.where(open_places & (place_rank < fill[:, None]), ids, canvas)
        shown.append(canvas.copy())
    return Decoded(tuple(until_end(row, encoder.sep_id) for row in canvas), tuple(shown))


def until_end(ids: np.ndarray, end: int) -> np.ndarray:
    """The ids before the first end-of-text."""
    ends = np.flatnonzero(ids == end)
    return ids[: ends[0]] if len(ends) else ids


def _choose(
    scores: np.ndarray, temperature: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, C] and their probabilities; drawn by the Gumbel trick if temperature is above 0."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    picked = log_probs
    if temperature > 0:
        picked = log_probs / temperature + generator.gumbel(size=scores.shape)
    ids = picked.argmax(axis=-1)
    return ids.astype(np.int32), np.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]
