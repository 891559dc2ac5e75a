"""ALBERT's text preprocessing (`preprocess_text` of the original).

White space is stripped and collapsed, the text is decomposed (NFKD), combining marks are dropped,
and letters are lowercased. Quotes are left alone, because the original never rewrites them.
Training a vocabulary, preparing documents, filling masks and export all use these rules.
"""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """Rules for cleaning a text before it is tokenized."""

    lower_case: bool = True
    """Lower the letters, as for all published models but the cased ones."""
    keep_accents: bool = False
    """Skip the decomposition, and keep combining marks."""
    collapse_spaces: bool = True
    """Strip the ends, and replace each run of white space by one space."""

    def apply(self, text: str) -> str:
        """The cleaned form of one text."""
        return self.apply_all([text])[0]

    def apply_all(self, texts: Sequence[str]) -> list[str]:
        """The cleaned forms of many texts, which take less time together."""
        cleaned = [" ".join(t.split()) for t in texts] if self.collapse_spaces else list(texts)
        if not self.keep_accents:
            indices = [i for i, text in enumerate(cleaned) if not text.isascii()]
            changed = _without_marks([cleaned[i] for i in indices])
            for i, text in zip(indices, changed, strict=True):
                cleaned[i] = text
        return [text.lower() for text in cleaned] if self.lower_case else cleaned


def _without_marks(texts: Sequence[str]) -> list[str]:
    """Decomposes texts and drops the combining marks."""
    if not texts:
        return []
    decomposed = [unicodedata.normalize("NFKD", text) for text in texts]
    # One gather for all texts (250 MB/s) replaces a loop over characters (10 MB/s).
    joined = "".join(decomposed).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, np.uint32)
    marks = np.flatnonzero(_is_mark()[codes])
    text = np.delete(codes, marks).tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.cumsum(list(map(len, decomposed)))
    ends -= np.searchsorted(marks, ends)
    return [text[begin:end] for begin, end in itertools.pairwise([0, *ends.tolist()])]


@cache
def _is_mark() -> np.ndarray:
    """Returns whether a code point is a combining mark, bool [code points]."""
    points = range(sys.maxunicode + 1)
    return np.fromiter((unicodedata.combining(chr(c)) != 0 for c in points), bool)
