"""The accuracy of a rule that tells the order of two segments from their cut alone.

A row is cut to its length, so the segment that comes second often ends in the middle of a
sentence. A model can predict the order from that alone without learning anything about text. The
rule here sees only the first and the last token of each segment, and its accuracy on held-out
pairs is the accuracy of such a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from albert_jax.data.batches.batch import Batch, unmasked_ids

MIN_COUNT = 20
"""A token seen less often than this at one edge in training is represented by its class."""

NUM_EDGE_TOKENS = 4
"""First and last token of segment A, first and last token of segment B."""


@dataclass(frozen=True)
class CutRule:
    """Naive Bayes over the four edge tokens of a pair, with log odds of swapped to original."""

    log_odds: np.ndarray
    """float64 [NUM_EDGE_TOKENS, V + 2]; the last two columns are those of rare tokens that continue
    a word and rare tokens that start one."""
    common: np.ndarray
    """bool [NUM_EDGE_TOKENS, V]; whether the token has a column of its own at that edge."""
    starts_word: np.ndarray
    """bool [V]."""
    bias: float
    """Log odds of the labels themselves."""

    @classmethod
    def learn(cls, batch: Batch, starts_word: np.ndarray) -> CutRule:
        """Counts the edges of the pairs of a batch; `starts_word` [V] is the vocabulary's."""
        tokens, labels = edges(batch)
        size = starts_word.size
        counts = [np.bincount(column, minlength=size) for column in tokens.T]
        common = np.stack(counts) >= MIN_COUNT
        rule = cls(np.zeros((NUM_EDGE_TOKENS, size + 2)), common, starts_word, 0.0)
        for edge, columns in enumerate(rule._columns(tokens).T):
            original, swapped = (
                np.bincount(columns[labels == label], minlength=size + 2) + 1.0 for label in (0, 1)
            )
            rule.log_odds[edge] = np.log(swapped / swapped.sum()) - np.log(
                original / original.sum()
            )
        bias = np.log((labels == 1).sum() + 1.0) - np.log((labels == 0).sum() + 1.0)
        return cls(rule.log_odds, common, starts_word, float(bias))

    def predict(self, tokens: np.ndarray) -> np.ndarray:
        """Predicts the labels [pairs] (1 is swapped) of edge tokens [pairs, NUM_EDGE_TOKENS]."""
        log_odds = self.log_odds[np.arange(NUM_EDGE_TOKENS), self._columns(tokens)]
        return np.asarray(self.bias + log_odds.sum(-1) > 0, np.int64)

    def accuracy(self, batches: Iterable[Batch]) -> float:
        """Share of the pairs that the rule predicts correctly; NaN without any pair."""
        tokens, labels = map(np.concatenate, zip(*map(edges, batches), strict=True))
        return float(np.mean(self.predict(tokens) == labels)) if labels.size else float("nan")

    def _columns(self, tokens: np.ndarray) -> np.ndarray:
        classes = self.starts_word.size + self.starts_word[tokens].astype(np.int64)
        own = self.common[np.arange(NUM_EDGE_TOKENS), tokens]
        return np.where(own, tokens, classes)


def edges(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Edge tokens [pairs, NUM_EDGE_TOKENS] and labels [pairs] of all pairs with a weight, int64.

    Masked tokens are restored first, because the rule is about the cut and not about the masks.
    A pair is stored as [CLS] A [SEP] B [SEP] under one segment id.
    """
    ids = unmasked_ids(batch).astype(np.int64)
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
    return np.array(tokens, np.int64).reshape(-1, NUM_EDGE_TOKENS), np.array(labels, np.int64)
