"""Exact match and F1 of answers, as the official SQuAD 1.1 and 2.0 scripts compute them.

Scores are percentages. Gold answers are lists of texts per question id; a question without any
is unanswerable, and its right answer is the empty string.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from albert_jax.errors import DataError

Gold = Mapping[str, Sequence[str]]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, gold: str) -> float:
    """1 if both are equal after normalization."""
    return float(normalize_answer(predicted) == normalize_answer(gold))


def token_f1(predicted: str, gold: str) -> float:
    """F1 of the bags of normalized words; an empty side scores only against an empty one."""
    p, g = normalize_answer(predicted).split(), normalize_answer(gold).split()
    if not p or not g:
        return float(p == g)
    shared = sum((Counter(p) & Counter(g)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(p), shared / len(g)
    return 2 * precision * recall / (precision + recall)


def squad_v1(predicted: Mapping[str, str], gold: Gold) -> dict[str, float]:
    """Exact match and F1 over all questions; a question without a prediction counts 0.

    The best of a question's gold answers counts. DataError for a question without answers.
    """
    exact = score = 0.0
    for name, answers in gold.items():
        if not answers:
            raise DataError(f"question {name!r} has no answer; score it by the rules of 2.0")
        if name in predicted:
            exact += max(exact_match(predicted[name], answer) for answer in answers)
            # Version 1.1 has no empty answers: an empty bag shares no word with any.
            score += max(_f1_v1(predicted[name], answer) for answer in answers)
    return {"exact_match": 100 * exact / len(gold), "f1": 100 * score / len(gold)}


class RawScores(NamedTuple):
    """Exact match and F1 (0 to 1) of each predicted question, before any threshold."""

    exact: dict[str, float]
    f1: dict[str, float]


def raw_scores(predicted: Mapping[str, str], gold: Gold) -> RawScores:
    """Scores of each question that has a prediction (2.0)."""
    exact, score = {}, {}
    for name, answers in gold.items():
        if name not in predicted:
            continue
        wanted = [answer for answer in answers if normalize_answer(answer)] or [""]
        exact[name] = max(exact_match(predicted[name], answer) for answer in wanted)
        score[name] = max(token_f1(predicted[name], answer) for answer in wanted)
    return RawScores(exact, score)


def best_threshold(
    predicted: Mapping[str, str],
    scores: Mapping[str, float],
    null_scores: Mapping[str, float],
    gold: Gold,
) -> tuple[float, float]:
    """Best percentage over all thresholds, and the threshold: above it the answer is empty.

    Questions are answered one by one in the order of their null score; the first best point
    wins. Start: nothing is answered, every unanswerable question is right, threshold 0.
    """
    now = best = float(sum(1 for answers in gold.values() if not answers))
    threshold = 0.0
    for name in sorted(null_scores, key=lambda name: null_scores[name]):
        if name not in scores:
            continue
        if gold[name]:
            now += scores[name]
        elif predicted[name]:
            now -= 1
        if now > best:
            best, threshold = now, null_scores[name]
    return 100 * best / len(scores), threshold


def squad_v2(
    predicted: Mapping[str, str],
    gold: Gold,
    null_scores: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Exact match and F1 over all, HasAns_ and NoAns_ parts, and best_* with their thresholds.

    With `null_scores`, `predicted` holds the best non-empty text, and a question whose null score
    is above the threshold that is best for F1 counts as answered by "".
    """
    if not gold:
        raise DataError("no questions to score; give a file with at least one")
    scores = raw_scores(predicted, gold)
    if not scores.exact:
        raise DataError("no prediction belongs to a question of the data; compare the ids")
    found: dict[str, float] = {}
    exact, score = scores
    if null_scores is not None:
        found["best_exact"], found["best_exact_thresh"] = best_threshold(
            predicted, scores.exact, null_scores, gold
        )
        found["best_f1"], found["best_f1_thresh"] = best_threshold(
            predicted, scores.f1, null_scores, gold
        )
        limit = found["best_f1_thresh"]
        exact = _thresholded(scores.exact, null_scores, gold, limit)
        score = _thresholded(scores.f1, null_scores, gold, limit)
    answerable = [name for name in exact if gold[name]]
    impossible = [name for name in exact if not gold[name]]
    parts = (("", list(exact)), ("HasAns_", answerable), ("NoAns_", impossible))
    for prefix, names in parts:
        if names:
            found[f"{prefix}exact"] = 100 * sum(exact[n] for n in names) / len(names)
            found[f"{prefix}f1"] = 100 * sum(score[n] for n in names) / len(names)
            found[f"{prefix}total"] = float(len(names))
    return found


def _thresholded(
    scores: Mapping[str, float], null_scores: Mapping[str, float], gold: Gold, limit: float
) -> dict[str, float]:
    return {
        name: float(not gold[name]) if null_scores[name] > limit else value
        for name, value in scores.items()
    }


def _f1_v1(predicted: str, gold: str) -> float:
    both = normalize_answer(predicted).split() and normalize_answer(gold).split()
    return token_f1(predicted, gold) if both else 0.0
