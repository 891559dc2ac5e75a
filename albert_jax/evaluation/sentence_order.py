"""What the order of two segments gives away by where they were cut.

A row is cut to its length, so the segment that comes second often ends in the middle of a
sentence. A model can be right about the order from that alone and have learnt nothing about
text. The rule here sees only the first and the last piece of each segment, and its accuracy on
held-out pairs is what such a model reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Batch = Mapping[str, np.ndarray]

COMMON = 20
"""A piece seen less often than this at one edge in training counts as its class only."""

EDGES = 4
"""First and last piece of segment A, first and last piece of segment B."""


@dataclass(frozen=True)
class CutRule:
    """Naive Bayes over the four edge pieces of a pair: a table of log odds "swapped : original"."""

    odds: np.ndarray
    """float64 [EDGES, V + 2]; the last two columns are rare pieces that go on a word and rare
    pieces that start one."""
    common: np.ndarray
    """bool [EDGES, V]: pieces with a column of their own at that edge."""
    starts_word: np.ndarray
    """bool [V]."""
    bias: float
    """Log odds of the labels themselves."""

    @classmethod
    def learn(cls, batches: Iterable[Batch], starts_word: np.ndarray) -> CutRule:
        """Counts the edges of training pairs; `starts_word` [V] is the vocabulary's."""
        pieces, labels = _stack(batches)
        size = starts_word.size
        common = np.stack(
            [np.bincount(pieces[:, edge], minlength=size) >= COMMON for edge in range(EDGES)]
        )
        rule = cls(np.zeros((EDGES, size + 2)), common, starts_word, 0.0)
        columns = rule._columns(pieces)
        odds = rule.odds
        for edge in range(EDGES):
            counts = [
                np.bincount(columns[labels == label, edge], minlength=size + 2) + 1.0
                for label in (0, 1)
            ]
            shares = [count / count.sum() for count in counts]
            odds[edge] = np.log(shares[1]) - np.log(shares[0])
        bias = np.log((labels == 1).sum() + 1.0) - np.log((labels == 0).sum() + 1.0)
        return cls(odds, common, starts_word, float(bias))

    def predict(self, pieces: np.ndarray) -> np.ndarray:
        """Edge pieces [pairs, EDGES] -> labels [pairs] (1: swapped)."""
        columns = self._columns(pieces)
        odds = self.bias + sum(self.odds[edge, columns[:, edge]] for edge in range(EDGES))
        return np.asarray(odds > 0, np.int64)

    def accuracy(self, batches: Iterable[Batch]) -> float:
        """Share of the pairs that the rule gets right; NaN if there is none."""
        pieces, labels = _stack(batches)
        return float(np.mean(self.predict(pieces) == labels)) if labels.size else float("nan")

    def _columns(self, pieces: np.ndarray) -> np.ndarray:
        classes = self.starts_word.size + self.starts_word[pieces].astype(np.int64)
        own = self.common[np.arange(EDGES)[None, :], pieces]
        return np.where(own, pieces, classes)


def edges(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Edge pieces int64 [pairs, EDGES] and labels int64 [pairs] of all pairs with a weight.

    Masked pieces are put back first: the rule is about the cut, not about the masks. A pair lies
    as [CLS] A [SEP] B [SEP] under one segment id.
    """
    ids = batch["input_ids"].astype(np.int64).copy()
    rows, places = np.nonzero(batch["mlm_weights"])
    ids[rows, batch["mlm_positions"][rows, places]] = batch["mlm_labels"][rows, places]
    pieces, labels = [], []
    for row, pair in zip(*np.nonzero(batch["sop_weights"]), strict=True):
        start = int(batch["cls_positions"][row, pair])
        mine = np.nonzero(batch["segment_ids"][row] == batch["segment_ids"][row, start])[0]
        second = mine[batch["token_type_ids"][row, mine] == 1]
        # Two pieces between the first of B and its [SEP], one between [CLS] and [SEP] of A, at
        # least; an empty segment has no edge.
        if second.size < 2 or second[0] - start < 3:
            continue
        first_b, last_b = int(second[0]), int(second[-1]) - 1
        pieces.append(
            [ids[row, start + 1], ids[row, first_b - 2], ids[row, first_b], ids[row, last_b]]
        )
        labels.append(int(batch["sop_labels"][row, pair]))
    return np.array(pieces, np.int64).reshape(-1, EDGES), np.array(labels, np.int64)


def _stack(batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    found = [edges(batch) for batch in batches]
    if not found:
        return np.zeros((0, EDGES), np.int64), np.zeros(0, np.int64)
    return (
        np.concatenate([pieces for pieces, _ in found]),
        np.concatenate([labels for _, labels in found]),
    )
