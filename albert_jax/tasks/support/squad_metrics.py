"""Exact match and F1 of answers, as the official SQuAD 1.1 and 2.0 scripts compute them.

Scores are percentages. Gold answers are lists of texts per question id; a question without any
is unanswerable, and its right answer is the empty string.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

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

    The best of a question's gold answers counts.
    """
    exact = f1 = 0.0
    for name, answers in gold.items():
        text = predicted.get(name)
        if text is None:
            continue
        exact += max(exact_match(text, answer) for answer in answers)
        # Unlike in 2.0, an empty bag of words shares no word with any, not even with an empty one.
        if normalize_answer(text):
            f1 += max(token_f1(text, answer) for answer in answers)
    return {"f1": 100 * f1 / len(gold), "exact_match": 100 * exact / len(gold)}


def squad_v2(
    predicted: Mapping[str, str], gold: Gold, null_scores: Mapping[str, float] | None = None
) -> dict[str, float]:
    """F1 and exact match over all, HasAns_ and NoAns_ parts, and best_* with their thresholds.

    Only questions with a prediction count. With `null_scores`, `predicted` holds the best
    non-empty text, and a question whose null score is above the threshold that is best for F1
    counts as answered by "".
    """
    exact: dict[str, float] = {}
    f1: dict[str, float] = {}
    for name, texts in gold.items():
        if name not in predicted:
            continue
        answers = [text for text in texts if normalize_answer(text)] or [""]
        exact[name] = max(exact_match(predicted[name], answer) for answer in answers)
        f1[name] = max(token_f1(predicted[name], answer) for answer in answers)
    best: dict[str, float] = {}
    if null_scores is not None:
        for kind, scores in (("exact", exact), ("f1", f1)):
            value, threshold = best_threshold(predicted, scores, null_scores, gold)
            best |= {f"best_{kind}": value, f"best_{kind}_thresh": threshold}
        for name in exact:
            if null_scores[name] > best["best_f1_thresh"]:
                exact[name] = f1[name] = float(not gold[name])
    answerable = [name for name in exact if gold[name]]
    impossible = [name for name in exact if not gold[name]]
    parts: dict[str, float] = {}
    for prefix, names in (("", list(exact)), ("HasAns_", answerable), ("NoAns_", impossible)):
        if names:
            parts[f"{prefix}f1"] = 100 * sum(f1[name] for name in names) / len(names)
            parts[f"{prefix}exact"] = 100 * sum(exact[name] for name in names) / len(names)
            parts[f"{prefix}total"] = float(len(names))
    return parts | best


def best_threshold(
    predicted: Mapping[str, str],
    scores: Mapping[str, float],
    null_scores: Mapping[str, float],
    gold: Gold,
) -> tuple[float, float]:
    """Best percentage over all thresholds, and the threshold: above it the answer is empty.

    Questions are answered one by one in the order of their null score, and the first best point
    wins. At the start nothing is answered, every unanswerable question is right, and the
    threshold is below all null scores (at most 0; the official script takes 0, because its scores
    are probabilities).
    """
    total = best = float(sum(1 for answers in gold.values() if not answers))
    threshold = min([0.0, *(score - 1 for score in null_scores.values())])
    for name in sorted(null_scores, key=lambda name: null_scores[name]):
        if name not in scores:
            continue
        if gold[name]:
            total += scores[name]
        elif predicted[name]:
            total -= 1
        if total > best:
            best, threshold = total, null_scores[name]
    return 100 * best / len(scores), threshold
