"""From span scores to answers: n-best lists, the score of no answer, the text as written.

The rules are those of squad_utils.py: only the window that shows a start with most context may
propose it, answers have at most ``max_length`` pieces, equal texts count once, and the null
score of a question is the lowest over its windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.tasks.examples import Question
from albert_jax.tasks.squad_features import SpanFeature


@dataclass(frozen=True)
class Candidate:
    """A span of one window, as context piece numbers of the window, and its log-probability."""

    feature: SpanFeature
    first: int
    last: int
    score: float


@dataclass(frozen=True)
class SpanAnswer:
    """A text, its score (log-probabilities of start and end added) and share of the n-best."""

    text: str
    score: float
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The n-best texts of one question, best first, and the score that there is no answer."""

    id: str
    best: tuple[SpanAnswer, ...]
    null_score: float

    def answer(self, threshold: float | None = None) -> str:
        """The best text; "" without one, or where the null score is above the threshold."""
        if not self.best or (threshold is not None and self.null_score > threshold):
            return ""
        return self.best[0].text


def independent_candidates(
    feature: SpanFeature,
    start: np.ndarray,
    end: np.ndarray,
    *,
    best: int = 20,
    max_length: int = 30,
) -> list[Candidate]:
    """Spans of one window from independent start and end logits [S] (1.1)."""
    ends = _top(end, best)
    return [
        candidate
        for s in _top(start, best)
        for e in ends
        if (candidate := _candidate(feature, s, e, start[s] + end[e], max_length))
    ]


def beam_candidates(
    feature: SpanFeature,
    start: np.ndarray,
    start_places: np.ndarray,
    end: np.ndarray,
    end_places: np.ndarray,
    *,
    max_length: int = 30,
) -> list[Candidate]:
    """Spans of one window from a beam (2.0): start [Ks], end [Ks, Ke] and their places."""
    return [
        candidate
        for i, s in enumerate(start_places)
        for j, e in enumerate(end_places[i])
        if (candidate := _candidate(feature, int(s), int(e), start[i] + end[i, j], max_length))
    ]


def predict(
    examples: Sequence[Question],
    candidates: Sequence[Candidate],
    null_scores: Sequence[tuple[int, float]] = (),
    *,
    best: int = 20,
) -> list[Prediction]:
    """One prediction per question, in their order.

    ``candidates`` of all windows, ``null_scores`` as (question number, score) per window. A
    question without windows or candidates has no n-best and answers "".
    """
    by_question: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        by_question.setdefault(candidate.feature.question, []).append(candidate)
    nulls: dict[int, float] = {}
    for number, value in null_scores:
        nulls[number] = min(value, nulls.get(number, math.inf))
    found = []
    for number, example in enumerate(examples):
        ranked = sorted(by_question.get(number, []), key=lambda c: c.score, reverse=True)
        texts: dict[str, float] = {}
        for candidate in ranked:
            if len(texts) >= best:
                break
            texts.setdefault(restore(example.context, candidate), candidate.score)
        shares = _softmax(list(texts.values()))
        answers = tuple(
            SpanAnswer(text, score, share)
            for (text, score), share in zip(texts.items(), shares, strict=True)
        )
        found.append(Prediction(example.id, answers, nulls.get(number, 0.0)))
    return found


def restore(context: str, candidate: Candidate) -> str:
    """The candidate's text as the context has it, without white space at its ends."""
    start = candidate.feature.starts[candidate.first]
    return context[start : candidate.feature.ends[candidate.last] + 1].strip()


def _candidate(
    feature: SpanFeature, start: int, end: int, score: float, max_length: int
) -> Candidate | None:
    first, last = start - feature.offset, end - feature.offset
    if first < 0 or last < first or last >= len(feature.ends):
        return None
    if not feature.best[first] or last - first + 1 > max_length:
        return None
    return Candidate(feature, first, last, float(score))


def _top(logits: np.ndarray, count: int) -> list[int]:
    """Places of the largest values, largest first, the earlier of equal ones first."""
    return np.argsort(-np.asarray(logits), kind="stable")[:count].tolist()


def _softmax(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]
