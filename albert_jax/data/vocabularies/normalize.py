"""ALBERT's text preprocessing (`preprocess_text` of the original).

White space is stripped and collapsed, the text is decomposed (NFKD), combining marks are dropped,
and letters are lowered. Quotes are left alone, because the original never rewrites them. Training
a vocabulary, preparing documents, filling masks and export all use these rules.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """How a text is cleaned before it is tokenized."""

    lower_case: bool = True
    """Lower the letters, as for all published models but the cased ones."""
    keep_accents: bool = False
    """Skip the decomposition, and keep combining marks."""
    collapse_spaces: bool = True
    """Strip the ends, and replace each run of white space by one space."""

    def apply(self, text: str) -> str:
        """The cleaned form of one text."""
        if self.collapse_spaces:
            text = " ".join(text.split())
        if not self.keep_accents and not text.isascii():
            text = _without_marks(unicodedata.normalize("NFKD", text))
        return text.lower() if self.lower_case else text

    def apply_all(self, texts: Sequence[str]) -> list[str]:
        """Does the same as `apply` to each text, but faster, by joining them to one string.

        They are joined by line feeds, which take part in no decomposition, so that the texts do
        not influence each other.
        """
        cleaned = list(texts)
        joined = "\n".join(cleaned)
        if joined.count("\n") != len(cleaned) - 1:
            return [self.apply(text) for text in cleaned]
        if self.collapse_spaces and _has_loose_spaces(joined, len(cleaned) - 1):
            cleaned = [" ".join(text.split()) for text in cleaned]
        indices: list[int] = []
        if not self.keep_accents and not joined.isascii():
            indices = [i for i, text in enumerate(cleaned) if not text.isascii()]
        if indices:
            not_ascii = "\n".join([cleaned[i] for i in indices])
            not_ascii = _without_marks(unicodedata.normalize("NFKD", not_ascii))
            for i, text in zip(indices, not_ascii.split("\n"), strict=True):
                cleaned[i] = text
        return [text.lower() for text in cleaned] if self.lower_case else cleaned


def _has_loose_spaces(joined: str, line_feeds: int) -> bool:
    """Whether collapsing may change a line. It is true for a few lines that do not change, too."""
    if "  " in joined or "\n " in joined or " \n" in joined:
        return True
    if joined[:1] == " " or joined[-1:] == " ":
        return True
    if joined.isascii():
        codes = np.frombuffer(joined.encode("ascii"), np.uint8)
        return int(np.count_nonzero(codes < 32)) != line_feeds
    return bool(_other_spaces()[_codes(joined)].any())


def _without_marks(text: str) -> str:
    codes = _codes(text)
    marks = _marks()[codes]
    if not marks.any():
        return text
    return codes[~marks].tobytes().decode("utf-32-le", "surrogatepass")


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


# One gather from a table over all code points (250 MB/s) replaces a loop over characters (10 MB/s).


@cache
def _marks() -> np.ndarray:
    points = range(sys.maxunicode + 1)
    return np.fromiter((unicodedata.combining(chr(c)) != 0 for c in points), bool)


@cache
def _other_spaces() -> np.ndarray:
    points = range(sys.maxunicode + 1)
    return np.fromiter((chr(c).isspace() and chr(c) not in " \n" for c in points), bool)
