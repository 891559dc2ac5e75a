"""From span scores to answers: n-best lists, and the text of a span as it was written.

The rules are those of squad_utils.py: only the window that shows a start with most context may
propose it, answers have at most `max_length` tokens, equal texts count once, and the null score
of a question is the lowest over its windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.tasks import metrics
from albert_jax.tasks.squad_files import Question


@dataclass(frozen=True)
class Window:
    """What the choice of spans must know of a window of a context.

    `starts` and `ends` are the first and last character of each token of the window, and `best`
    [tokens] tells whether no other window shows the token with more context. `offset` is the row
    position of the first token.
    """

    question: int
    offset: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    best: np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A span of one window, as token numbers of the window, and its log-probability."""

    window: Window
    first: int
    last: int
    score: float


def independent_candidates(
    window: Window, start: np.ndarray, end: np.ndarray, *, n_best: int, max_length: int
) -> list[Candidate]:
    """Spans of one window from independent start and end logits [S] (1.1)."""
    ends = _top(end, n_best)
    spans = ((s, e, start[s] + end[e]) for s in _top(start, n_best) for e in ends)
    return _candidates(window, spans, max_length)


def beam_candidates(
    window: Window,
    start: np.ndarray,
    start_positions: np.ndarray,
    end: np.ndarray,
    end_positions: np.ndarray,
    *,
    max_length: int,
) -> list[Candidate]:
    """Spans of one window from a beam (2.0): start [Ks] and end [Ks, Ke] with their positions."""
    spans = (
        (int(s), int(e), start[i] + end[i, j])
        for i, s in enumerate(start_positions)
        for j, e in enumerate(end_positions[i])
    )
    return _candidates(window, spans, max_length)


def rank(
    examples: Sequence[Question],
    candidates: Sequence[Candidate],
    null_scores: Sequence[tuple[int, float]],
    n_best: int,
) -> list[dict[str, Any]]:
    """One prediction per question, in their order: id, text, n-best list, and null_score.

    Args:
      examples: the questions.
      candidates: spans of all windows.
      null_scores: (number of the question, score) of each window; empty leaves them out.
      n_best: most texts of the list.

    A question without candidates has an empty list and the answer "".
    """
    by_question: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        by_question.setdefault(candidate.window.question, []).append(candidate)
    nulls: dict[int, float] = {}
    for number, value in null_scores:
        nulls[number] = min(value, nulls.get(number, math.inf))
    predictions = []
    for number, example in enumerate(examples):
        texts: dict[str, float] = {}
        for candidate in sorted(by_question.get(number, []), key=lambda c: c.score, reverse=True):
            if len(texts) >= n_best:
                break
            texts.setdefault(restore(example.context, candidate), candidate.score)
        probabilities = metrics.softmax(list(texts.values())) if texts else ()
        best = [
            {"text": text, "score": score, "probability": float(probability)}
            for (text, score), probability in zip(texts.items(), probabilities, strict=True)
        ]
        prediction = {"id": example.id, "text": best[0]["text"] if best else "", "best": best}
        if null_scores:
            prediction["null_score"] = nulls.get(number, 0.0)
        predictions.append(prediction)
    return predictions


def restore(context: str, candidate: Candidate) -> str:
    """The candidate's text as the context has it, without white space at its ends."""
    window = candidate.window
    return context[window.starts[candidate.first] : window.ends[candidate.last] + 1].strip()


def _candidates(
    window: Window, spans: Iterable[tuple[int, int, float]], max_length: int
) -> list[Candidate]:
    """The spans, given as row positions, that a window may propose."""
    candidates = []
    for start, end, score in spans:
        first, last = start - window.offset, end - window.offset
        inside = 0 <= first <= last < len(window.ends)
        if inside and window.best[first] and last - first < max_length:
            candidates.append(Candidate(window, first, last, float(score)))
    return candidates


def _top(logits: np.ndarray, count: int) -> list[int]:
    """Positions of the largest values, largest first, the earlier of equal ones first."""
    return np.argsort(-np.asarray(logits), kind="stable")[:count].tolist()
