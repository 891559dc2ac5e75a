"""How well the order of two segments can be told from where they were cut.

A row is cut to its length, so the segment that comes second often ends in the middle of a
sentence. A model can predict the order from that alone without learning anything about text. The
rule here sees only the first and the last token of each segment, and its accuracy on held-out
pairs is the accuracy of such a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

Batch = Mapping[str, np.ndarray]

COMMON = 20
"""A token seen less often than this at one edge in training is represented by its class."""

EDGES = 4
"""First and last token of segment A, first and last token of segment B."""


@dataclass(frozen=True)
class CutRule:
    """Naive Bayes over the four edge tokens of a pair, with log odds of swapped to original."""

    odds: np.ndarray
    """float64 [EDGES, V + 2]; the last two columns stand for the rare tokens that continue a word
    and the rare tokens that start one."""
    common: np.ndarray
    """bool [EDGES, V]; whether the token has a column of its own at that edge."""
    starts_word: np.ndarray
    """bool [V]."""
    bias: float
    """Log odds of the labels themselves."""

    @classmethod
    def learn(cls, batches: Iterable[Batch], starts_word: np.ndarray) -> CutRule:
        """Counts the edges of training pairs; `starts_word` [V] is the vocabulary's."""
        tokens, labels = _stack(batches)
        size = starts_word.size
        common = np.stack(
            [np.bincount(tokens[:, edge], minlength=size) >= COMMON for edge in range(EDGES)]
        )
        rule = cls(np.zeros((EDGES, size + 2)), common, starts_word, 0.0)
        columns = rule._columns(tokens)
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

    def predict(self, tokens: np.ndarray) -> np.ndarray:
        """Predicts the labels [pairs] (1 is swapped) of edge tokens [pairs, EDGES]."""
        columns = self._columns(tokens)
        odds = self.bias + sum(self.odds[edge, columns[:, edge]] for edge in range(EDGES))
        return np.asarray(odds > 0, np.int64)

    def accuracy(self, batches: Iterable[Batch]) -> float:
        """Share of the pairs that the rule predicts correctly; NaN without any pair."""
        tokens, labels = _stack(batches)
        return float(np.mean(self.predict(tokens) == labels)) if labels.size else float("nan")

    def _columns(self, tokens: np.ndarray) -> np.ndarray:
        classes = self.starts_word.size + self.starts_word[tokens].astype(np.int64)
        own = self.common[np.arange(EDGES)[None, :], tokens]
        return np.where(own, tokens, classes)


def edges(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Edge tokens int64 [pairs, EDGES] and labels int64 [pairs] of all pairs with a weight.

    Masked tokens are restored first, because the rule is about the cut and not about the masks.
    A pair is stored as [CLS] A [SEP] B [SEP] under one segment id.
    """
    ids = batch["input_ids"].astype(np.int64).copy()
    rows, slots = np.nonzero(batch["mlm_weights"])
    ids[rows, batch["mlm_positions"][rows, slots]] = batch["mlm_labels"][rows, slots]
    tokens, labels = [], []
    for row, pair in zip(*np.nonzero(batch["sop_weights"]), strict=True):
        start = int(batch["cls_positions"][row, pair])
        members = np.nonzero(batch["segment_ids"][row] == batch["segment_ids"][row, start])[0]
        second = members[batch["token_type_ids"][row, members] == 1]
        # An empty segment has no edges: B needs a token before its [SEP], and A one between [CLS]
        # and [SEP].
        if second.size < 2 or second[0] - start < 3:
            continue
        first_b, last_b = int(second[0]), int(second[-1]) - 1
        tokens.append(
            [ids[row, start + 1], ids[row, first_b - 2], ids[row, first_b], ids[row, last_b]]
        )
        labels.append(int(batch["sop_labels"][row, pair]))
    return np.array(tokens, np.int64).reshape(-1, EDGES), np.array(labels, np.int64)


def _stack(batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray]:
    parts = [edges(batch) for batch in batches]
    if not parts:
        return np.zeros((0, EDGES), np.int64), np.zeros(0, np.int64)
    return (
        np.concatenate([tokens for tokens, _ in parts]),
        np.concatenate([labels for _, labels in parts]),
    )
