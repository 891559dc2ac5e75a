"""Finding documents that share an n-gram of 13 words with evaluation files.

Words are compared in lower case, without punctuation or white space, across the ends of lines.
Each Chinese character is a word.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from albert_jax.data.sources import tables, text_files
from albert_jax.errors import DataError

NGRAM_WORDS = 13
"""The usual choice of reports on contamination."""
MAX_FILE_BYTES = 256 << 20
"""Larger evaluation files are refused."""

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+")


class Overlap:
    """Compares documents with evaluation files: text, tables or JSON, compressed or not."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._evaluation = _evaluation_ngrams(tuple(paths))
        self.found = np.zeros(len(self._evaluation), bool)
        """True for each distinct n-gram that a document has shown, bool [n-grams]."""

    def shares_ngram(self, text: str) -> bool:
        """Returns whether a document has an n-gram of the evaluation files; records which."""
        hashes = _ngrams(text)
        if not len(hashes) or not len(self._evaluation):
            return False
        nearest = np.searchsorted(self._evaluation, hashes).clip(max=len(self._evaluation) - 1)
        shared = nearest[self._evaluation[nearest] == hashes]
        self.found[shared] = True
        return bool(len(shared))


@lru_cache(maxsize=1)
def _evaluation_ngrams(paths: tuple[str, ...]) -> np.ndarray:
    """Sorted hashes of the distinct n-grams of some files, uint64 [n-grams]."""
    hashes = [np.zeros(0, np.uint64)]
    for path in paths:
        with text_files.open_stream(path) as stream:
            content = stream.read(MAX_FILE_BYTES)
        if len(content) >= MAX_FILE_BYTES:
            raise DataError(f"{path}: evaluation files have at most 256 MB: divide it")
        if content.startswith(b"PAR1"):
            raise DataError(f"{path}: is Parquet: write its texts to a .txt or .jsonl file")
        text_files.check_kind(path, content)
        found = [_ngrams(text) for text in _texts(path, tables.decode(content, path))]
        if not any(map(len, found)):
            raise DataError(
                f"{path}: no text of {NGRAM_WORDS} words, so nothing can be compared: leave it out"
            )
        hashes += found
    return np.unique(np.concatenate(hashes))


def _texts(path: str, content: str) -> Iterator[str]:
    """The texts of a file. JSON is parsed, because escapes such as \\n would hide words."""
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
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield " ".join(value)  # Words of a sentence, one by one.
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _ngrams(text: str) -> np.ndarray:
    """Hashes of all n-grams of a text, uint64 [words - NGRAM_WORDS + 1]."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint64)
    hashes = np.zeros(max(len(words) - NGRAM_WORDS + 1, 0), np.uint64)
    for i in range(NGRAM_WORDS):  # arithmetic modulo 2^64
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[i : i + len(hashes)] + np.uint64(1)
    return hashes
