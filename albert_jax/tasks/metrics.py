"""Scores of predictions, their uncertainty and the baseline beside them, in numpy.

All scores are plain numbers (shares between 0 and 1, correlations between -1 and 1); BLEU and
chrF are on sacrebleu's scale of 0 to 100.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from albert_jax.errors import ConfigError


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Share of equal entries."""
    return float(np.mean(np.asarray(predicted) == np.asarray(true)))


def f1(predicted: np.ndarray, true: np.ndarray, positive: int = 1) -> float:
    """F1 of one class; 0 where it is neither predicted nor true (as scikit-learn)."""
    p, t = np.asarray(predicted) == positive, np.asarray(true) == positive
    total = p.sum() + t.sum()
    return float(2 * (p & t).sum() / total) if total else 0.0


def macro_f1(predicted: np.ndarray, true: np.ndarray, classes: int) -> float:
    """Unweighted mean of the classes' F1."""
    return float(np.mean([f1(predicted, true, c) for c in range(classes)]))


def matthews(predicted: np.ndarray, true: np.ndarray) -> float:
    """Matthews correlation for any number of classes (Gorodkin 2004); 0 if one side is constant."""
    p, t = np.asarray(predicted), np.asarray(true)
    classes = np.union1d(p, t)
    ps = np.array([(p == c).sum() for c in classes], np.float64)
    ts = np.array([(t == c).sum() for c in classes], np.float64)
    n = float(len(t))
    over = float((p == t).sum()) * n - float(ps @ ts)
    under = np.sqrt((n * n - ps @ ps) * (n * n - ts @ ts))
    return float(over / under) if under > 0 else 0.0


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pearson correlation; 0 if one side is constant."""
    p, t = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    p, t = p - p.mean(), t - t.mean()
    under = np.sqrt((p @ p) * (t @ t))
    return float(p @ t / under) if under > 0 else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman correlation: Pearson of the ranks, equal values sharing their mean rank."""
    return pearson(ranks(predicted), ranks(true))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64; equal values get the mean of the ranks they span."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse.reshape(-1)]


def by_group(predicted: np.ndarray, true: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Accuracy over all and, where there are named groups, "accuracy_NAME" of each."""
    scores = {"accuracy": accuracy(predicted, true)}
    names = np.array(groups)
    for name in sorted(set(groups) - {""}):
        chosen = names == name
        scores[f"accuracy_{name}"] = accuracy(predicted[chosen], true[chosen])
    return scores


class TagSpan(NamedTuple):
    """A named run of words, first and last inclusive."""

    kind: str
    first: int
    last: int


MARKS = ("B", "I", "E", "S")
"""What a tag begins with that is part of a span."""
UNNAMED = "_"
"""Kind of the spans of bare marks."""


def names_spans(tags: Iterable[str]) -> bool:
    """Whether a set of tags is of BIO's or BIOES' form; parts of speech, say, are not."""
    inside = set(tags) - {"O"}
    return all(tag in MARKS or tag[:2] in {f"{mark}-" for mark in MARKS} for tag in inside)


def tag_spans(tags: Sequence[str]) -> set[TagSpan]:
    """Runs named by BIO or BIOES tags, read as conlleval does: a lost "B" is forgiven. Bare marks
    (B, I, E, S) make runs of one kind."""
    found: set[TagSpan] = set()
    kind, first = "", 0
    for i, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if tag in MARKS:
            name = UNNAMED
        opens = bool(name) and (mark in "BS" or name != kind)
        if kind and (opens or not name):
            found.add(TagSpan(kind, first, i - 1))
            kind = ""
        if opens:
            kind, first = name, i
        if kind and mark in ("E", "S"):
            found.add(TagSpan(kind, first, i))
            kind = ""
    return found


def span_f1(predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> dict[str, float]:
    """precision, recall and f1 of exact spans over all sentences, and accuracy of the tags."""
    hits = guessed = wanted = 0
    same = total = 0
    for p, t in zip(predicted, true, strict=True):
        ps, ts = tag_spans(p), tag_spans(t)
        hits, guessed, wanted = hits + len(ps & ts), guessed + len(ps), wanted + len(ts)
        same += sum(a == b for a, b in zip(p, t, strict=True))
        total += len(t)
    precision = hits / guessed if guessed else 0.0
    recall = hits / wanted if wanted else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "accuracy": same / total if total else 0.0,
    }


def bleu_chrf(predicted: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU and chrF by sacrebleu; ConfigError if it is not installed."""
    try:
        import sacrebleu
    except ImportError as error:
        raise ConfigError("BLEU and chrF need sacrebleu; pip install 'albert-jax[bleu]'") from error
    references: list[Any] = [list(true)]
    return {
        "bleu": float(sacrebleu.corpus_bleu(list(predicted), references).score),
        "chrf": float(sacrebleu.corpus_chrf(list(predicted), references).score),
    }


class Interval(NamedTuple):
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(
    metric: Callable[..., float],
    *columns: Any,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a metric over examples drawn with replacement.

    ``columns`` are arrays with one entry per example; the metric is called with all of them.
    """
    arrays = [np.asarray(column) for column in columns]
    count = len(arrays[0])
    generator = np.random.Generator(np.random.Philox(key=seed))
    values = np.empty(samples)
    for i in range(samples):
        chosen = generator.integers(0, count, count)
        values[i] = metric(*(array[chosen] for array in arrays))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(metric(*arrays)), float(low), float(high))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error (0 for a single value)."""
    array = np.asarray(values, np.float64)
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else 0.0
    return float(array.mean()), float(error)


def majority(train: Sequence[int], count: int) -> np.ndarray:
    """``count`` times the commonest class of the training labels (the lowest of equal ones)."""
    counts = Counter(train)
    most = max(counts.values())
    return np.full(count, min(label for label, times in counts.items() if times == most))
