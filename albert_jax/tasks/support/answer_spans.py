"""From questions to windows of their contexts, and from scores of positions back to answers.

The rules are the original's (squad_utils.py): windows are `doc_stride` tokens apart, answers are
mapped to tokens by alignment, only the window that shows a start with most context may propose
it, and equal texts count once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from albert_jax.tasks.support.offsets import Alignment, align
from albert_jax.tasks.support.rows import TokenSequence, encode_all
from albert_jax.tasks.support.squad_files import Question

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowFeature:
    """A question with one window of its context; a window without the answer is `impossible`."""

    tokens: TokenSequence
    question: int
    """Number of the example."""
    offset: int
    """Row position of the first token of the window."""
    starts: tuple[int, ...]
    """First character in the context of each token of the window."""
    ends: tuple[int, ...]
    """Last character of each token."""
    is_best: np.ndarray
    """bool [tokens of the window]: no other window shows the token with more context."""
    start: int
    """Row position of the answer's first token; 0 ([CLS]) without an answer in the window."""
    end: int
    """Row position of its last token."""
    impossible: bool


def window_features(
    vocabulary: Any,
    examples: Sequence[Question],
    length: int,
    doc_stride: int,
    max_query_length: int,
) -> list[WindowFeature]:
    """The windows of all questions in rows of `length` tokens.

    The vocabulary must have text rules, as SentencePiece and WordPiece vocabularies have.
    The first answer of each question is the one to train on. A question whose context cannot be
    aligned with its tokens has no windows (the original drops it too), which is logged.
    """
    ids = encode_all(vocabulary, (text for x in examples for text in (x.question, x.context)))

    # Questions of one paragraph follow each other, so that one alignment serves them all.
    @lru_cache(maxsize=8)
    def aligned(context: str) -> Alignment | None:
        return align(context, vocabulary.token_texts(context), vocabulary.rules)

    features: list[WindowFeature] = []
    dropped: list[str] = []
    for number, example in enumerate(examples):
        alignment, context = aligned(example.context), ids(example.context)
        if alignment is None:
            dropped.append(example.where)
            continue
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
            row = np.concatenate((head, context[begin:stop], [vocabulary.sep_id]))
            is_truncated = index == 0 and len(query) < len(ids(example.question))
            shift = len(head) - begin
            features.append(
                WindowFeature(
                    tokens=TokenSequence(row.astype(np.int32), len(head), is_truncated),
                    question=number,
                    offset=len(head),
                    starts=alignment.starts[begin:stop],
                    ends=alignment.ends[begin:stop],
                    is_best=owner[begin:stop] == index,
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


def window_bounds(count: int, size: int, stride: int) -> list[tuple[int, int]]:
    """(begin, stop) of windows of at most `size` tokens over `count` tokens."""
    step = min(size, stride)
    return [(i, min(i + size, count)) for i in range(0, max(1, count - size + step), step)]


def span_texts(
    feature: WindowFeature,
    context: str,
    starts: np.ndarray,
    ends: np.ndarray,
    scores: np.ndarray,
    max_length: int,
) -> list[tuple[str, float]]:
    """The texts of at most `max_length` tokens that a window may propose, with their scores.

    `starts` are row positions [K], `ends` those [K, J] for each start, with `scores` [K, J].
    """
    first, last = starts[:, None] - feature.offset, ends - feature.offset
    inside = (first >= 0) & (first <= last) & (last < len(feature.ends))
    first = np.broadcast_to(first, last.shape)
    allowed = np.argwhere(inside & (last - first < max_length))
    spans = ((first[k, j], last[k, j], scores[k, j]) for k, j in allowed)
    return [
        (context[feature.starts[a] : feature.ends[b] + 1].strip(), float(score))
        for a, b, score in spans
        if feature.is_best[a]
    ]


def rank(texts: Sequence[tuple[str, float]], n_best: int) -> list[dict[str, Any]]:
    """The best different texts of a question, each with its score and probability among them."""
    from scipy.special import softmax

    scores: dict[str, float] = {}
    for text, score in sorted(texts, key=lambda item: item[1], reverse=True):
        if len(scores) < n_best:
            scores.setdefault(text, score)
    probabilities = softmax(list(scores.values())) if scores else ()
    return [
        {"text": text, "score": score, "probability": float(probability)}
        for (text, score), probability in zip(scores.items(), probabilities, strict=True)
    ]


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
