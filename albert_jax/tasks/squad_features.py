"""Features of span extraction: overlapping windows of a context behind each question.

The original's rules (squad_utils.py): question cut to 64 pieces, windows of the context
``stride`` apart, answers mapped to pieces by alignment, and a mask of the places that can be
no answer.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.alignment import Alignment, align
from albert_jax.tasks.examples import Question
from albert_jax.tasks.old_features import Batch, Encoder, Tokens, encode_all, sequence_rows, weights
from albert_jax.tasks.pieces import Named, written_pieces

log = logging.getLogger(__name__)


class PieceEncoder(Encoder, Named, Protocol):
    """A vocabulary with named pieces and the rules it applies to a text first."""

    rules: TextRules


@dataclass(frozen=True)
class SpanFeature:
    """One window: ``question`` counts examples, ``window`` the windows of one example.

    ``starts``/``ends`` are first and last character of each context piece of the window,
    ``best`` bool per context piece: no other window shows it with more context. ``offset`` is
    the row place of the first context piece. Answer places are row places; 0 ([CLS]) for none.
    """

    question: int
    window: int
    tokens: Tokens
    offset: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    best: np.ndarray
    start: int
    end: int
    impossible: bool


def span_features(
    encoder: PieceEncoder,
    examples: Sequence[Question],
    length: int,
    *,
    stride: int = 128,
    query_length: int = 64,
) -> list[SpanFeature]:
    """Windows of all questions; the first answer of each is the one to train on.

    A question whose context cannot be aligned with its pieces has no windows (the original
    drops it too); a line in the log tells how many. An answer outside a window makes it
    unanswerable. Raises ConfigError if question and specials leave no place for the context.
    """
    if length < query_length + 4:
        raise ConfigError(
            f"task.query_length {query_length} leaves no place for a context in rows of "
            f"{length}: lower it or lengthen the rows"
        )
    if stride < 1:
        raise ConfigError(f"task.stride {stride}: it must be at least 1")
    ids = encode_all(encoder, (t for x in examples for t in (x.question, x.context)))

    # Questions of one paragraph follow each other, so that one alignment serves them all.
    @lru_cache(maxsize=8)
    def aligned(context: str) -> Alignment | None:
        pieces = written_pieces(
            encoder,
            ids(context),
            unicodedata.normalize("NFC", encoder.rules.apply(context)),
            word_piece=encoder.id_to_token(encoder.unk_id) == "[UNK]",
        )
        return align(context, pieces, encoder.rules)

    found: list[SpanFeature] = []
    left_out: list[str] = []
    for number, example in enumerate(examples):
        places = aligned(example.context)
        if places is None:
            left_out.append(example.where)
            continue
        query, context = ids(example.question)[:query_length], ids(example.context)
        if len(context) != len(places.starts):
            raise DataError(f"{example.where}: pieces and ids of the context differ in number")
        answer: tuple[int, int] | None = None
        if example.answers:
            first = example.answers[0]
            answer = places.piece_span(first.start, len(first.text))
        windows = window_bounds(len(context), length - len(query) - 3, stride)
        owner = _best_windows(windows, len(context))
        head = np.concatenate(([encoder.cls_id], query, [encoder.sep_id]))
        for w, (begin, stop) in enumerate(windows):
            inside = answer is not None and begin <= answer[0] and answer[1] < stop
            shift = len(head) - begin
            found.append(
                SpanFeature(
                    question=number,
                    window=w,
                    tokens=Tokens(
                        np.concatenate((head, context[begin:stop], [encoder.sep_id])).astype(
                            np.int32
                        ),
                        len(head),
                    ),
                    offset=len(head),
                    starts=places.starts[begin:stop],
                    ends=places.ends[begin:stop],
                    best=owner[begin:stop] == w,
                    start=answer[0] + shift if answer and inside else 0,
                    end=answer[1] + shift if answer and inside else 0,
                    impossible=not inside,
                )
            )
    if left_out:
        log.warning(
            "%d of %d questions are left out, the first at %s: their contexts do not match their "
            "pieces, for signs that the vocabulary spells otherwise or for their length",
            len(left_out), len(examples), left_out[0],
        )  # fmt: skip
    return found


def window_bounds(count: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(begin, stop) of windows of at most ``room`` pieces over ``count`` pieces."""
    bounds = []
    begin = 0
    while begin < count:
        stop = min(begin + room, count)
        bounds.append((begin, stop))
        if stop == count:
            break
        begin += min(stop - begin, stride)
    return bounds


def answer_mask(feature: SpanFeature, length: int) -> np.ndarray:
    """p_mask float32 [length]: 1 where no answer can stand; [CLS] and the context are 0."""
    mask = np.ones(length, np.float32)
    mask[0] = 0
    mask[feature.offset : feature.offset + len(feature.starts)] = 0
    return mask


def span_batch(features: Sequence[SpanFeature], length: int, rows: int) -> Batch:
    """Rows with start_positions, end_positions, is_impossible int32 [rows], p_mask and weights."""
    batch = sequence_rows([feature.tokens for feature in features], length, rows)
    batch["p_mask"] = np.ones((rows, length), np.float32)
    batch["p_mask"][:, 0] = 0
    for name in ("start_positions", "end_positions", "is_impossible"):
        batch[name] = np.zeros(rows, np.int32)
    for i, feature in enumerate(features):
        batch["p_mask"][i] = answer_mask(feature, length)
        batch["start_positions"][i] = feature.start
        batch["end_positions"][i] = feature.end
        batch["is_impossible"][i] = feature.impossible
    batch["example_weights"] = weights(len(features), rows)
    return batch


def _best_windows(windows: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """For each piece the window where the smaller of its two contexts is largest (first wins)."""
    best = np.full(count, -1.0)
    owner = np.zeros(count, np.int64)
    for w, (begin, stop) in enumerate(windows):
        places = np.arange(begin, stop)
        value = np.minimum(places - begin, stop - 1 - places) + 0.01 * (stop - begin)
        better = value > best[begin:stop]
        best[begin:stop] = np.where(better, value, best[begin:stop])
        owner[begin:stop] = np.where(better, w, owner[begin:stop])
    return owner
