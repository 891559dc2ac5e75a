"""Segments each word of a corpus only once.

Where no token reaches across white space, the tokens of a text are those of its words, one after
the other. Most words of a text have occurred before, and looking them up is faster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

MAX_CHARACTERS = 1 << 21
"""The cache is emptied when its words have more characters: a quarter of a million common words,
or some 50 MB. The limit does not count words, because text without spaces has long ones."""

Segment = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Turns texts into one int32 array of all ids and an int64 array of ids per text."""

_LOCK = threading.Lock()  # It belongs to the module, so that caches can be pickled.


class WordCache:
    """A `Segment` for texts whose tokens do not reach across white space (`str.split`)."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._clear()

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts, and how many ids each text has."""
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
        # The position inside each word is added to where the word begins.
        positions = np.arange(total) + np.repeat(self._begins[numbers] - (ends - counts), counts)
        ids = self._ids[positions]
        borders = np.concatenate([[0], ends])[np.cumsum(sizes)]
        if self._characters > MAX_CHARACTERS:
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
    """Numbers words in the order in which they are looked up, and lists the new ones."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.new.append(word)
        return number
