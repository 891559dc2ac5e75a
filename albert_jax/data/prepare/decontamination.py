"""Finding documents that repeat text of evaluation files: a shared run of 13 words.

Words are compared in lower case, without punctuation or white space, across the ends of lines.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from albert_jax.data.sources import text_files
from albert_jax.errors import DataError

RUN_WORDS = 13
"""Length of a run, the usual choice of reports on contamination."""
MAX_FILE_BYTES = 256 << 20
"""Larger evaluation files are refused."""

_WORD = re.compile(r"\w+")


class Overlap:
    """Compares documents with evaluation files: text, tables or JSON, compressed or not."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._runs = _evaluation_runs(tuple(paths))
        self.found = np.zeros(len(self._runs), bool)
        """Which of the distinct runs a document has shown, bool [runs]."""

    def shares_run(self, text: str) -> bool:
        """Whether a document has a run of the evaluation files; also records which ones."""
        runs = _runs(text)
        if not len(runs) or not len(self._runs):
            return False
        nearest = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        shared = nearest[self._runs[nearest] == runs]
        self.found[shared] = True
        return bool(len(shared))


@lru_cache(maxsize=1)
def _evaluation_runs(paths: tuple[str, ...]) -> np.ndarray:
    """Sorted hashes of the distinct runs of some files, uint64 [runs]."""
    runs = [np.zeros(0, np.uint64)]
    for path in paths:
        with text_files.opened(path) as stream:
            content = stream.read(MAX_FILE_BYTES)
        if len(content) >= MAX_FILE_BYTES:
            raise DataError(f"{path}: evaluation files have at most 256 MB: divide it")
        text_files.check_kind(path, content)
        runs += [_runs(text) for text in _texts(path, content.decode("utf-8", "replace"))]
    return np.unique(np.concatenate(runs))


def _texts(path: str, content: str) -> Iterator[str]:
    """The texts of a file. JSON is parsed, because escapes such as \\\\n would hide words."""
    if ".json" not in path and ".ndjson" not in path:
        yield content
        return
    try:
        yield from _strings(json.loads(content))
    except (ValueError, RecursionError):
        for line in content.split("\n"):
            try:
                yield from _strings(json.loads(line))
            except (ValueError, RecursionError):
                yield line


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _runs(text: str) -> np.ndarray:
    """Hashes of all runs of RUN_WORDS words, uint64 [words - RUN_WORDS + 1]."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint64)
    if len(words) < RUN_WORDS:
        return np.zeros(0, np.uint64)
    hashes = np.zeros(len(words) - RUN_WORDS + 1, np.uint64)
    for i in range(RUN_WORDS):  # arithmetic modulo 2^64
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[i : i + len(hashes)] + np.uint64(1)
    return hashes
