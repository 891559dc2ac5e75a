"""The words and marks of a sentence, and which of its phonemes belong to which word."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

_EQUIVALENT_MARKS = {
    "\u201e": "\u201c", "\u201f": "\u201c", "\u300c": "\u201c", "\u300d": "\u201d",
    "\u300e": "\u201c", "\u300f": "\u201d", "\u300a": "\u00ab", "\u300b": "\u00bb",
    "\u2013": "\u2014", "\u2015": "\u2014", "\u3002": ".", "\u0964": ".", "\u06d4": ".",
    "\uff0c": ",", "\u3001": ",", "\u060c": ",", "\uff01": "!", "\uff1f": "?", "\u061f": "?",
    "\uff1a": ":", "\uff1b": ";", "\u061b": ";", "\uff08": "(", "\uff09": ")", "\u22ef": "\u2026",
    "{": "(", "}": ")", "[": "(", "]": ")",
}  # fmt: skip
"""Marks in other scripts and forms, and the ones that tables of symbols have."""
_SPOKEN = frozenset("%&@#'\u2019\u2030\u00a7")
"""Punctuation by Unicode that is part of a word."""
_JOINING = frozenset("./-\u2010\u2011")
_IN_NUMBERS = frozenset(",:")
"""Marks that may stand inside words and numbers."""
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_IGNORED_IN_ALIGNMENT = frozenset(" \u02c8\u02cc\u02d0")


class WordOrMark(NamedTuple):
    """A word or a mark of a sentence."""

    word: str
    """As it is written."""
    spoken: str | None
    """Its phonemes, or the mark itself; None for a word whose phonemes are not known yet."""
    spaced: bool
    """True if there is a space in front of it."""
    clause: int
    """Number of the clause; marks end one."""


def label_of(word: str) -> str:
    """The form in which a word is counted and predicted, without quotation marks around it."""
    word = word.lower().replace("\u2019", "'")
    return word.strip("'") or word


def known_mark(mark: str, marks: Collection[str]) -> str:
    """The one of `marks` that a mark is written with, or "" if it is left out."""
    if mark in marks:
        return mark
    known = _EQUIVALENT_MARKS.get(mark, "")
    return known if known in marks else ""


def units(
    sentence: str, marks: Collection[str], cut: Callable[[str], Iterable[str]] = iter
) -> list[WordOrMark]:
    """The words and marks of a sentence; of all marks those in `marks` are kept.

    Words are what stands between spaces and marks; those of Chinese text are what `cut` finds, by
    default the characters.
    """
    found: list[WordOrMark] = []
    clause = 0
    for chunk in _with_spaces(sentence, cut).split():
        spaced = bool(found)
        for part in filter(None, _parts(chunk)):
            if not is_mark(part[0]) or _is_minus(part, 0):
                found.append(WordOrMark(part, None, spaced, clause))
                spaced = False
                continue
            clause += 1
            for mark in part:
                if known := known_mark(mark, marks):
                    found.append(WordOrMark(known, known, spaced, clause))
                    spaced = False
    return found


def _with_spaces(sentence: str, cut: Callable[[str], Iterable[str]]) -> str:
    """A sentence with spaces between its Chinese words, and between them and others."""
    if not _IDEOGRAPH.search(sentence):
        return sentence
    parts = list(cut(sentence))
    joined = parts[:1]
    for before, after in itertools.pairwise(parts):
        border = before[-1] + after[0]
        joined.append(" " * (border.isalnum() and _IDEOGRAPH.search(border) is not None))
        joined.append(after)
    return "".join(joined)


def without_marks(word: str) -> str:
    """A word without the marks at its ends."""
    begin, end = _ends(word)
    return word[begin:end]


def _ends(chunk: str) -> tuple[int, int]:
    begin, end = 0, len(chunk)
    while begin < end and is_mark(chunk[begin]) and not _is_minus(chunk, begin):
        begin += 1
    while end > begin and is_mark(chunk[end - 1]):
        end -= 1
    return begin, end


def _is_minus(chunk: str, i: int) -> bool:
    """Returns whether a place is the sign of a number, which is spoken."""
    return i == 0 and chunk[:1] == "-" and chunk[1:2].isdigit()


def _parts(chunk: str) -> list[str]:
    """A run of characters without a space as words and runs of marks."""
    if chunk.isalnum():
        return [chunk]
    begin, end = _ends(chunk)
    parts, start = [chunk[:begin]], begin
    for i in range(begin, end):
        if is_mark(chunk[i]) and not _is_minus(chunk, i) and not _joins(chunk, i):
            parts += [chunk[start:i], chunk[i]]
            start = i + 1
    return [*parts, chunk[start:end], chunk[end:]]


def _joins(chunk: str, i: int) -> bool:
    """Returns whether the mark at a place inside a chunk is part of a word or number."""
    before, mark, after = chunk[i - 1 : i + 2]
    if mark in _IN_NUMBERS:
        return before.isdigit() and after.isdigit()
    return mark in _JOINING and not (is_mark(before) or is_mark(after))


@lru_cache(maxsize=1 << 16)
def is_mark(character: str) -> bool:
    """Returns whether a character is punctuation that is not spoken."""
    return unicodedata.category(character)[0] == "P" and character not in _SPOKEN


def align_phonemes(words: Sequence[str], spoken: str, alone: Callable[[str], str]) -> list[str]:
    """The phonemes of each word of a clause, which the language speaks as `spoken`.

    Where it joins words ("of the"), or says a word as several ("1999"), the borders are those that
    fit best to the phonemes of each word `alone`. A word may be left without phonemes.
    """
    tokens = spoken.split()
    if len(tokens) == len(words) and not any(map(str.isdigit, "".join(words))):
        return tokens
    first = last = 0
    while first < min(len(words), len(tokens)) and _bare(alone(words[first])) == _bare(
        tokens[first]
    ):
        first += 1
    while last < min(len(words), len(tokens)) - first and _bare(alone(words[-1 - last])) == _bare(
        tokens[-1 - last]
    ):
        last += 1
    inner = _fitted(
        [alone(word) for word in words[first : len(words) - last]],
        " ".join(tokens[first : len(tokens) - last]),
    )
    return [*tokens[:first], *inner, *tokens[len(tokens) - last :]]


def _bare(phonemes: str) -> str:
    return "".join(symbol for symbol in phonemes if symbol not in _IGNORED_IN_ALIGNMENT)


def _fitted(parts: Sequence[str], whole: str) -> list[str]:
    """`whole` cut where the borders of the parts lie in their best common alignment."""
    if len(parts) < 2:
        return [whole] * len(parts)
    places = [i for i, symbol in enumerate(whole) if symbol not in _IGNORED_IN_ALIGNMENT]
    left, right = "".join(map(_bare, parts)), "".join(whole[i] for i in places)
    places.append(len(whole))
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    cuts, border = [0], 0
    for part in parts[:-1]:
        border += len(_bare(part))
        before = max((b + min(n, border - a) for a, b, n in blocks if a <= border), default=0)
        after = min((b + max(0, border - a) for a, b, n in blocks if border <= a + n))
        # A border lies where a space is, if there is one between the symbols that are certain.
        candidates = [places[i] for i in range(before, max(before, after) + 1)]
        cut = next((c for c in candidates if _gap(whole, c)), candidates[0])
        cuts.append(max(cuts[-1], _start(whole, cut)))
    return [whole[a:b].strip() for a, b in zip(cuts, [*cuts[1:], len(whole)], strict=True)]


def _start(whole: str, place: int) -> int:
    """The place where the syllable that holds the symbol at `place` begins: before its stress."""
    while place and whole[place - 1] in "\u02c8\u02cc":
        place -= 1
    return place


def _gap(whole: str, place: int) -> bool:
    start = _start(whole, place)
    return start > 0 and whole[start - 1] == " "
