"""A mixture of corpora: which corpus each row of a phase comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albert_jax.data import counter_rng

PERIOD = 1 << 14
"""Number of rows after which the pattern repeats; weights are met to within 1 in this number."""


class Mixture:
    """A repeating pattern of corpora in proportion to their weights.

    Attributes:
      pattern: int64 [PERIOD], the corpus of each row of the pattern.
    """

    def __init__(self, weights: Sequence[float], key: int) -> None:
        share = np.array(weights, float) / sum(weights) * PERIOD
        counts = np.maximum(np.floor(share), 1).astype(np.int64)
        order = np.argsort(counts - share, kind="stable")
        while counts.sum() != PERIOD:
            rest = PERIOD - int(counts.sum())
            if rest > 0:
                counts[order[:rest]] += 1
            else:
                counts[np.argmax(counts)] -= 1
        pattern = np.repeat(np.arange(len(counts)), counts)
        self.pattern = pattern[counter_rng.permutation(key, PERIOD)]
        self._counts = counts
        self._rank = np.zeros(PERIOD, np.int64)
        for corpus, count in enumerate(counts.tolist()):
            self._rank[self.pattern == corpus] = np.arange(count)

    def corpus_of(self, rows: np.ndarray) -> np.ndarray:
        """The corpus that each row of the phase comes from."""
        return self.pattern[rows % PERIOD]

    def rows_within(self, corpus: int, rows: np.ndarray) -> np.ndarray:
        """The numbers that rows of one corpus have among all rows of that corpus."""
        return rows // PERIOD * self._counts[corpus] + self._rank[rows % PERIOD]
