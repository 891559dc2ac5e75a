"""The place of each token in the text as it was written (squad_utils.py).

Normalization drops and changes characters, so the spelled tokens are matched with the original
text by a longest common subsequence of characters, searched only near the diagonal. Texts that
match in less than 80 % of their characters are given up, as in the original.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from albert_jax.data.vocabularies.normalize import TextRules

LONG_BLANK = 8
"""White space beyond this many characters is not matched one by one."""
MAX_CELLS = 1 << 28
"""Cells (bytes) of the table of an alignment."""

_LONG_BLANK = re.compile(rf"\s{{{LONG_BLANK + 1}}}")
_MOST_JOINED = 8
"""Characters that may compose to one; known are four."""
_NONE = -1
_UP, _LEFT, _MATCH = 0, 1, 2


@dataclass(frozen=True)
class Alignment:
    """First and last character of each token in the text, and the token of each character.

    `starts` and `ends` are int [tokens], both inclusive. `unit_of` int [characters] is the unit
    of each character (see `units`), `matches` int [units] the matching character of the joined
    tokens or -1, and `token_of` int [joined characters].
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    unit_of: np.ndarray
    matches: np.ndarray
    token_of: np.ndarray

    def token_span(self, start: int, length: int) -> tuple[int, int]:
        """First and last token of `length` characters of the text from `start` on."""
        first = _nearest(self.matches, int(self.unit_of[start]), is_start=True)
        last = _nearest(self.matches, int(self.unit_of[start + length - 1]), is_start=False)
        return int(self.token_of[first]), int(self.token_of[last])


def units(text: str) -> list[str]:
    """The units of a text that are matched: its characters, except for two kinds of runs.

    What composes to one character (a letter and its marks, a Korean syllable) is one unit, and so
    is white space from the LONG_BLANK-th character on, which would widen the band.
    """
    if unicodedata.is_normalized("NFC", text) and not _LONG_BLANK.search(text):
        return list(text)
    begins: list[int] = []
    blanks = 0
    for i, character in enumerate(text):
        blanks = blanks + 1 if character.isspace() else 0
        near = begins and i - begins[-1] < _MOST_JOINED
        joins = near and len(unicodedata.normalize("NFC", text[begins[-1] : i + 1])) == 1
        if blanks <= LONG_BLANK and not joins:
            begins.append(i)
    return [text[begin:end] for begin, end in pairwise([*begins, len(text)])]


def align(text: str, tokens: Sequence[str], rules: TextRules) -> Alignment | None:
    """Alignment of a text with its spelled tokens; None if less than 80 % of it matches.

    None too if the table would have more than MAX_CELLS cells, because text and tokens differ
    too much in length. `rules` are those of the vocabulary.
    """
    # Both sides are compared composed, whatever the rules have taken apart (Korean, Bengali).
    tokens = [unicodedata.normalize("NFC", token) for token in tokens]
    joined, parts = "".join(tokens), units(text)
    n, m = len(parts), len(joined)
    reach = abs(n - m) + 5
    if not n or not m or n * 2 * reach > MAX_CELLS:
        return None
    single = replace(rules, collapse_spaces=False)
    normal = {c: unicodedata.normalize("NFC", single.apply(c)) for c in set(parts)}
    # Only a unit that normalizes to exactly one character can match; -1 matches nothing.
    written = np.array([ord(x) if len(x) == 1 else _NONE for x in (normal[c] for c in parts)])
    characters = np.array([ord(c) for c in joined])
    score, moves = _band(written, characters, reach)
    if not score > 0.8 * n and n * 4 * reach <= MAX_CELLS:
        del moves
        reach *= 2
        score, moves = _band(written, characters, reach)
    matches, origins = _trace(moves, reach, n, m)
    if score < 0.8 * n or not (matches >= 0).any():
        return None
    lengths = np.array([len(token) for token in tokens])
    ends = np.cumsum(lengths)
    sizes = np.array([len(part) for part in parts])
    stops = np.cumsum(sizes)
    first = [_nearest(origins, int(i), is_start=True, limit=n) for i in ends - lengths]
    last = [_nearest(origins, int(i), is_start=False, limit=n) for i in ends - 1]
    return Alignment(
        tuple((stops - sizes)[first].tolist()),
        tuple((stops - 1)[last].tolist()),
        np.repeat(np.arange(n), sizes),
        matches,
        np.repeat(np.arange(len(tokens)), lengths),
    )


def _band(written: np.ndarray, characters: np.ndarray, reach: int) -> tuple[int, np.ndarray]:
    """Score of the last cell and the moves, int8 [n, 2 * reach]."""
    # Cell (i, j) is stored in column j - i + reach; outside the band every score is 0. Of equal
    # scores "up" wins over "left" over "match": the original's order, and its ties decide spans.
    n, m, width = len(written), len(characters), 2 * reach
    moves = np.full((n, width), _NONE, np.int8)
    before = np.zeros(m + 1, np.int32)
    now = np.zeros(m + 1, np.int32)
    for i in range(n):
        low, high = max(0, i - reach), min(m, i + reach)
        now[:] = 0
        if low < high:
            # Index j + 1 holds column j, so that index 0 is the 0 left of the table.
            above = before[low + 1 : high + 1]
            matched = np.where(characters[low:high] == written[i], before[low:high] + 1, 0)
            row = np.maximum.accumulate(np.maximum(above, matched))
            left = np.concatenate(([0], row[:-1]))
            move = np.full(high - low, _UP if i else _NONE, np.int8)
            move[left > above] = _LEFT
            move[matched > np.maximum(above, left)] = _MATCH
            moves[i, low - i + reach : high - i + reach] = move
            now[low + 1 : high + 1] = row
        before, now = now, before
    return int(before[m]), moves


def _trace(moves: np.ndarray, reach: int, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    matches = np.full(n, _NONE)
    origins = np.full(m, _NONE)
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        column = j - i + reach
        move = moves[i, column] if 0 <= column < moves.shape[1] else _NONE
        if move == _MATCH:
            matches[i], origins[j] = j, i
            i, j = i - 1, j - 1
        elif move == _LEFT:
            j -= 1
        elif move == _UP:
            i -= 1
        else:
            break
    return matches, origins


def _nearest(index: np.ndarray, at: int, *, is_start: bool, limit: int | None = None) -> int:
    """The value at an index or, without one, the value that its neighbors leave for it."""
    # A gap between two values is given to the start after the left one and to the end before the
    # right one; `limit` is the length of the text that values point into.
    if index[at] >= 0:
        return int(index[at])
    known = np.flatnonzero(index >= 0)
    after = int(np.searchsorted(known, at))
    front = int(index[known[after - 1]]) if after > 0 else None
    rear = int(index[known[after]]) if after < len(known) else None
    if front is None:
        assert rear is not None, "an alignment has at least one match"
        return rear if rear < 1 else (0 if is_start else rear - 1)
    if rear is None:
        if limit is None or front >= limit - 1:
            return front
        return front + 1 if is_start else limit - 1
    if rear > front + 1:
        return front + 1 if is_start else rear - 1
    return rear if is_start else front
