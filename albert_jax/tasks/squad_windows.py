"""Questions as features: overlapping windows of the context behind each question.

The rules are the original's (squad_utils.py): windows are `doc_stride` tokens apart, and answers
are mapped to tokens by alignment.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.tasks.answer_spans import Window
from albert_jax.tasks.features import Tokens, encode_all
from albert_jax.tasks.offsets import Alignment, align, spell_tokens
from albert_jax.tasks.squad_files import Question

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowFeature:
    """A question with one window of its context, and where the answer stands in the row.

    Without an answer in the window both positions are 0 ([CLS]) and `impossible` is set.
    """

    tokens: Tokens
    window: Window
    start: int
    end: int
    impossible: bool


def window_features(
    vocabulary: Vocabulary,
    examples: Sequence[Question],
    length: int,
    doc_stride: int,
    max_query_length: int,
) -> list[WindowFeature]:
    """The windows of all questions in rows of `length` tokens.

    The first answer of each question is the one to train on. A question whose context cannot be
    aligned with its tokens has no windows (the original drops it too); a line in the log tells
    how many there are.
    """
    ids = encode_all(vocabulary, (text for x in examples for text in (x.question, x.context)))
    aligned = _aligner(vocabulary, ids)
    features: list[WindowFeature] = []
    dropped: list[str] = []
    for number, example in enumerate(examples):
        alignment, context = aligned(example.context), ids(example.context)
        if alignment is None:
            dropped.append(example.where)
            continue
        if len(context) != len(alignment.starts):
            raise DataError(f"{example.where}: tokens and ids of the context differ in number")
        query = ids(example.question)[:max_query_length]
        head = np.concatenate(([vocabulary.cls_id], query, [vocabulary.sep_id]))
        answer: tuple[int, int] | None = None
        if example.answers:
            first = example.answers[0]
            answer = alignment.token_span(first.start, len(first.text))
        bounds = window_bounds(len(context), length - len(head) - 1, doc_stride)
        owner = _best_windows(bounds, len(context))
        for index, (begin, stop) in enumerate(bounds):
            inside = answer is not None and begin <= answer[0] and answer[1] < stop
            parts = (head, context[begin:stop], [vocabulary.sep_id])
            window = Window(
                question=number,
                offset=len(head),
                starts=alignment.starts[begin:stop],
                ends=alignment.ends[begin:stop],
                best=owner[begin:stop] == index,
            )
            shift = len(head) - begin
            features.append(
                WindowFeature(
                    tokens=Tokens(np.concatenate(parts).astype(np.int32), len(head)),
                    window=window,
                    start=answer[0] + shift if answer and inside else 0,
                    end=answer[1] + shift if answer and inside else 0,
                    impossible=not inside,
                )
            )
    if dropped:
        log.warning(
            "%d of %d questions are left out, the first at %s: their contexts do not match their "
            "tokens, because of characters that the vocabulary spells otherwise or of their length",
            len(dropped), len(examples), dropped[0],
        )  # fmt: skip
    return features


def window_bounds(count: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(begin, stop) of windows of at most `room` tokens over `count` tokens."""
    bounds: list[tuple[int, int]] = []
    begin = 0
    while begin < count and (not bounds or bounds[-1][1] < count):
        stop = min(begin + room, count)
        bounds.append((begin, stop))
        begin += min(stop - begin, stride)
    return bounds


def _aligner(
    vocabulary: Any, ids: Callable[[str], np.ndarray]
) -> Callable[[str], Alignment | None]:
    # Questions of one paragraph follow each other, so that one alignment serves them all.
    @lru_cache(maxsize=8)
    def aligned(context: str) -> Alignment | None:
        spelled = spell_tokens(
            vocabulary,
            ids(context),
            unicodedata.normalize("NFC", vocabulary.rules.apply(context)),
            word_piece=vocabulary.id_to_token(vocabulary.unk_id) == "[UNK]",
        )
        return align(context, spelled, vocabulary.rules)

    return aligned


def _best_windows(bounds: Sequence[tuple[int, int]], count: int) -> np.ndarray:
    """For each token the window where the smaller of its two contexts is largest (first wins)."""
    best = np.full(count, -1.0)
    owner = np.zeros(count, np.int64)
    for index, (begin, stop) in enumerate(bounds):
        positions = np.arange(begin, stop)
        value = np.minimum(positions - begin, stop - 1 - positions) + 0.01 * (stop - begin)
        better = value > best[begin:stop]
        best[begin:stop] = np.where(better, value, best[begin:stop])
        owner[begin:stop] = np.where(better, index, owner[begin:stop])
    return owner
