"""How the pieces of a text read, unknown ones included.

A vocabulary gives ids, and an unknown id says nothing of the characters it covers. They are
found again in the cleaned text, between the known pieces around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

SPACE = "\u2581"
CONTINUES = "##"
"""What opens a WordPiece that does not begin a word."""

_WINDOW = 64
"""How far behind the expected place a known piece is looked for."""


class Named(Protocol):
    """The part of a vocabulary that names pieces."""

    unk_id: int

    def id_to_token(self, id: int) -> str:
        """The piece with this id."""
        ...


def written_pieces(
    vocabulary: Named, ids: Sequence[int] | np.ndarray, cleaned: str, *, word_piece: bool = False
) -> list[str]:
    """Text of each piece of ``cleaned`` (the text after the vocabulary's rules).

    Spaces are " ". Pieces of a WordPiece vocabulary get one in front unless they continue a
    word. An unknown piece reads as the characters up to the next known one.
    """
    known = [
        None
        if int(i) == vocabulary.unk_id
        else _surface(vocabulary.id_to_token(int(i)), word_piece)
        for i in ids
    ]
    text = " " + cleaned
    found: list[str] = []
    at = 0
    for number, surface in enumerate(known):
        if surface is None:
            following = next((s for s in known[number + 1 :] if s is not None), None)
            stop = len(text) if following is None else _find(text, following, at + 1)
            found.append(text[at:stop])
            at = stop
            continue
        begin = _find(text, surface, at)
        # A space put in front by the rule for digits before a comma is not in the text.
        length = len(surface) if text.startswith(surface, begin) else len(surface.lstrip(" "))
        found.append(surface)
        at = begin + length
    return found


def _surface(piece: str, word_piece: bool) -> str:
    if word_piece:
        return piece[len(CONTINUES) :] if piece.startswith(CONTINUES) else " " + piece
    return piece.replace(SPACE, " ")


def _find(text: str, surface: str, at: int) -> int:
    """The first place from ``at`` on where a piece stands; ``at`` if it stands nowhere near."""
    for form in (surface, surface.lstrip(" ")):
        place = text.find(form, at, at + _WINDOW + len(form)) if form else -1
        if place >= 0:
            return place
    return at
