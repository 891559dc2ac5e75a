"""Scores of predictions, and the baseline of the majority class.

Shares lie between 0 and 1; BLEU and chrF are on sacrebleu's scale of 0 to 100. Span F1 is our own,
because the package that is known for it has had no release or wheel since 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


def classification(predicted: np.ndarray, true: np.ndarray, classes: int) -> dict[str, float]:
    """Accuracy, F1 (of class 1 if there are two, else the mean over classes), Matthews correlation.

    `predicted` and `true` are class numbers. A class that occurs in neither is left out of the
    mean, as scikit-learn does; other scores that are undefined count as 0.
    """
    counts = np.zeros((classes, classes))  # Of each pair (true, predicted).
    np.add.at(counts, (true, predicted), 1)
    right, of_true, of_predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1 = 2 * right / np.maximum(of_true + of_predicted, 1)
    # Gorodkin's correlation of several classes, which is that of Matthews for two.
    total = counts.sum()
    covariance = right.sum() * total - of_true @ of_predicted
    variances = (total**2 - of_true @ of_true) * (total**2 - of_predicted @ of_predicted)
    return {
        "accuracy": float(np.mean(predicted == true)),
        "f1": float(f1[1] if classes == 2 else f1[of_true + of_predicted > 0].mean()),
        "matthews": float(covariance / math.sqrt(variances)) if variances else 0.0,
    }


def correlations(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlation; 0 if one side is constant."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(pearsonr(predicted, true)[0]),  # type: ignore[arg-type]
        "spearman": float(spearmanr(predicted, true)[0]),  # type: ignore[arg-type]
    }


MARKS = ("B", "I", "E", "S")
"""Prefixes of the tags of a span."""


class TagSpan(NamedTuple):
    """A labeled run of words; `first` and `last` are inclusive."""

    label: str
    first: int
    last: int


def are_span_tags(tags: Iterable[str]) -> bool:
    """Returns whether tags have the form of BIO or BIOES; parts of speech, for example, do not."""
    inside = set(tags) - {"O"}
    return all(tag in MARKS or tag[:2] in {f"{mark}-" for mark in MARKS} for tag in inside)


def tag_spans(tags: Sequence[str]) -> set[TagSpan]:
    """Spans of BIO or BIOES tags, read as conlleval does: a missing "B" is forgiven.

    Bare marks (B, I, E, S) make spans of one label.
    """
    spans: set[TagSpan] = set()
    label, first = "", 0
    for i, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if tag in MARKS:
            name = "_"
        opens = bool(name) and (mark in "BS" or name != label)
        if label and (opens or not name):
            spans.add(TagSpan(label, first, i - 1))
            label = ""
        if opens:
            label, first = name, i
        if label and mark in ("E", "S"):
            spans.add(TagSpan(label, first, i))
            label = ""
    return spans


def span_f1(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall of exact spans over all sentences, and accuracy of the tags."""
    pairs = list(zip(predicted, true, strict=True))
    spans = [(tag_spans(p), tag_spans(t)) for p, t in pairs]
    hits = sum(len(p & t) for p, t in spans)
    predicted_spans, true_spans = sum(len(p) for p, _ in spans), sum(len(t) for _, t in spans)
    equal = [a == b for p, t in pairs for a, b in zip(p, t, strict=True)]
    return {
        "f1": 2 * hits / max(1, predicted_spans + true_spans),
        "precision": hits / max(1, predicted_spans),
        "recall": hits / max(1, true_spans),
        "accuracy": sum(equal) / max(1, len(equal)),
    }


def bleu_chrf(predicted: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU and chrF by sacrebleu; nothing where it is not installed.

    Each ideograph of Chinese is a word for BLEU, because no spaces separate its words.
    """
    try:
        import sacrebleu
    except ImportError:
        return {}
    references: list[Any] = [list(true)]
    letters = [character for text in true for character in text if character.isalpha()]
    ideographs = sum("\u3400" <= letter <= "\u9fff" for letter in letters)
    tokenize = "zh" if ideographs > len(letters) / 2 else "13a"
    return {
        "bleu": float(sacrebleu.corpus_bleu(list(predicted), references, tokenize=tokenize).score),
        "chrf": float(sacrebleu.corpus_chrf(list(predicted), references).score),
    }


def commonest(labels: Any) -> int:
    """The commonest number (the lowest of equally common ones)."""
    return int(np.bincount(labels).argmax())
