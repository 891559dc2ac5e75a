"""How much of an evaluation set stands in the training text: shared runs of words.

A run of WORDS words of the evaluation files that also stands in a training document counts as
found. Numbers only: nothing is taken out of the corpus.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from albert_jax.data.sources import text_files
from albert_jax.errors import DataError

WORDS = 13
"""Length of a run: the usual choice of reports on contamination."""

_WORD = re.compile(r"\w+")


class Overlap:
    """Counts runs of the evaluation files in documents that are shown one by one."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Reads the evaluation files (text of any kind; words are all that is looked at)."""
        self._runs = _evaluation_runs(tuple(paths))
        self.found = np.zeros(len(self._runs), bool)
        """Which of the distinct runs were seen, bool [runs]."""
        self.documents = 0
        """Documents with at least one of them."""

    def look(self, text: str) -> None:
        """Takes note of a document."""
        runs = _runs(text)
        if not len(runs) or not len(self._runs):
            return
        places = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        hits = places[self._runs[places] == runs]
        self.found[hits] = True
        self.documents += bool(len(hits))


@lru_cache(maxsize=1)
def _evaluation_runs(paths: tuple[str, ...]) -> np.ndarray:
    found = [np.zeros(0, np.uint64)]
    for path in paths:
        with text_files.opened(path) as stream:
            content = stream.read(256 << 20)
        if len(content) >= 256 << 20:
            raise DataError(f"{path}: evaluation files have at most 256 MB: divide it")
        found += [_runs(line) for line in content.decode("utf-8", "replace").split("\n")]
    return np.unique(np.concatenate(found))


def _runs(text: str) -> np.ndarray:
    """Hashes of all runs of WORDS words, uint64 [words - WORDS + 1]."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint64)
    if len(words) < WORDS:
        return np.zeros(0, np.uint64)
    mixed = np.zeros(len(words) - WORDS + 1, np.uint64)
    for i in range(WORDS):  # arithmetic modulo 2^64
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + words[i : i + len(mixed)] + np.uint64(1)
    return mixed
