"""Segments each word of a corpus once.

Where no piece reaches across white space, a text's pieces are those of its words one after the
other, and most words of a text have been seen before: they are looked up faster than segmented.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

LIMIT = 1 << 21
"""Characters of words that are kept, a quarter of a million common ones (some 50 MB); beyond it the
cache begins anew. Not words: text without spaces has long ones."""

Segment = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Texts to one int32 array of all ids and an int64 array of ids per text."""

_LOCK = threading.Lock()  # of the module, so that caches can be pickled


class WordCache:
    """A `Segment` for texts whose pieces do not reach across white space (`str.split`)."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._clear()

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, and how many belong to each."""
        with _LOCK:
            return self._look_up(texts)

    def _look_up(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        split = [text.split() for text in texts]
        sizes = np.fromiter(map(len, split), np.int64, len(split))
        words = map(self._numbers.__getitem__, chain.from_iterable(split))
        numbers = np.fromiter(words, np.int64, int(sizes.sum()))
        if self._numbers.new:
            self._learn()
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        # Place inside each word, added to where that word begins.
        places = np.arange(total) + np.repeat(self._begins[numbers] - (ends - counts), counts)
        ids = self._ids[places]
        borders = np.concatenate([[0], ends])[np.cumsum(sizes)]
        if self._characters > LIMIT:
            self._clear()
        return ids, np.diff(borders, prepend=0)

    def _learn(self) -> None:
        ids, counts = self._segment(self._numbers.new)
        begins = len(self._ids) + np.cumsum(counts) - counts
        self._ids = np.concatenate([self._ids, ids])
        self._counts = np.concatenate([self._counts, counts])
        self._begins = np.concatenate([self._begins, begins])
        self._characters += sum(map(len, self._numbers.new))
        self._numbers.new = []

    def _clear(self) -> None:
        self._numbers = _Numbers()
        self._characters = 0
        self._ids = np.zeros(0, np.int32)
        self._counts = np.zeros(0, np.int64)
        self._begins = np.zeros(0, np.int64)


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are asked for; `new` are those since `new` was
    emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.new.append(word)
        return number
