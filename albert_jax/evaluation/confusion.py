"""The errors of a classifier: confusion matrix, and most confident wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from albert_jax.observe.console import terminal_width
from albert_jax.tasks.task import AnyTask, Prediction

MAX_COLUMNS = 12
"""Most labels of a printed matrix; of more labels the commonest confusions are printed."""
WORST = 10
"""Wrong answers that are kept."""
SHOWN_CHARACTERS = 90
"""Most characters of a text that are printed."""


@dataclass(frozen=True)
class WrongAnswer:
    """An example that was labeled wrong."""

    where: str
    label: str
    predicted: str
    probability: float
    """Of the predicted label."""
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Confusion:
    """The answers of a classifier beside the true labels."""

    labels: tuple[str, ...]
    counts: np.ndarray
    """int64 [labels, labels]: rows are true labels, columns predicted ones."""
    worst: tuple[WrongAnswer, ...]
    """The most confident wrong answers, the most confident one first."""

    def as_json(self) -> dict[str, Any]:
        """Entries of evaluation.json."""
        matrix = {"labels": list(self.labels), "counts": self.counts.tolist()}
        return {"confusion": matrix, "worst_errors": [asdict(wrong) for wrong in self.worst]}

    def lines(self) -> list[str]:
        """The matrix and the wrong answers as lines of text."""
        lines = _matrix(self.labels, self.counts)
        if len(self.labels) > MAX_COLUMNS:
            lines = _commonest(self.labels, self.counts)
        if self.worst:
            lines.append("most confident wrong answers:")
        for wrong in self.worst:
            text = " | ".join(" ".join(text.split()) for text in wrong.texts)
            if len(text) > SHOWN_CHARACTERS:
                text = text[:SHOWN_CHARACTERS] + "..."
            lines.append(
                f"  {wrong.label}, taken for {wrong.predicted} ({wrong.probability:.1%}): {text}  "
                f"[{wrong.where.rpartition('/')[2]}]"
            )
        return lines


def of_predictions(
    task: AnyTask, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> Confusion | None:
    """The errors of a task whose examples have labels; None for other tasks."""
    truth = [task.truth(example) for example in examples]
    if None in truth:
        return None
    labels, wrong = task.output_names, []
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for example, label, prediction in zip(examples, truth, predictions, strict=True):
        predicted, texts = prediction["label"], tuple(task.texts(example))
        counts[labels.index(str(label)), labels.index(predicted)] += 1
        if predicted != label:
            probability = prediction["probability"]
            wrong.append(WrongAnswer(example.where, str(label), predicted, probability, texts))
    wrong.sort(key=lambda answer: -answer.probability)
    return Confusion(labels, counts, tuple(wrong[:WORST]))


def _matrix(labels: Sequence[str], counts: np.ndarray) -> list[str]:
    """The matrix with the share of each true label that was found, and of each answer's hits."""
    hits = counts.diagonal()
    recall = hits / np.maximum(counts.sum(axis=1), 1)
    precision = hits / np.maximum(counts.sum(axis=0), 1)
    table = [["true \\ predicted", *labels, "recall"]]
    for label, row, share in zip(labels, counts, recall, strict=True):
        table.append([label, *map(str, row), f"{share:.1%}"])
    table.append(["precision", *(f"{share:.1%}" for share in precision), ""])
    widths = [max(map(terminal_width, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *cells in table:
        padded = [
            " " * (size - terminal_width(c)) + c for c, size in zip(cells, widths[1:], strict=True)
        ]
        lines.append(
            "  ".join([first + " " * (widths[0] - terminal_width(first)), *padded]).rstrip()
        )
    return lines


def _commonest(labels: Sequence[str], counts: np.ndarray) -> list[str]:
    wrong = counts * ~np.eye(len(labels), dtype=bool)
    order = [divmod(int(i), len(labels)) for i in np.argsort(-wrong, axis=None, kind="stable")]
    pairs = [(a, b) for a, b in order[:WORST] if wrong[a, b]]
    return [f"{labels[a]}, taken for {labels[b]}: {wrong[a, b]} times" for a, b in pairs]
