"""The words of a text as spans of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albert_jax.data.vocabularies.sentencepiece import SPACE, SentencePiece
from albert_jax.data.vocabularies.vocabulary import Vocabulary, special_ids

_WITHOUT_SPACES = (
    ("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"),
    ("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff"),
)  # fmt: skip
"""Thai and Lao, Myanmar, Khmer, kana and ideographs: scripts whose words no space separates."""


def continues_word(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """True for each token that is an inner part of a word, bool like `ids`.

    `starts_word` is the original's rule for masking, which knows English letters only. Here the
    letters of other scripts count too, where a token of SentencePiece lacks the mark of a start.
    """
    found, inverse = np.unique(ids, return_inverse=True)
    inner = ~np.asarray(vocabulary.starts_word, bool)[found]
    if isinstance(vocabulary, SentencePiece):
        inner |= [_is_spaced_letter(vocabulary.id_to_token(int(id))[:1]) for id in found]
    return inner[inverse].reshape(np.shape(ids))


def _is_spaced_letter(character: str) -> bool:
    """Returns whether a character is a letter beyond ASCII, of a script with spaces."""
    in_other = any(first <= character <= last for first, last in _WITHOUT_SPACES)
    return character.isalpha() and not character.isascii() and not in_other


def word_spans(vocabulary: Vocabulary, ids: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """The first token of each word, and the one after its last.

    Special tokens, punctuation and Chinese characters are words of their own.
    """
    special = set(special_ids(vocabulary))
    starts: list[int] = []
    inner = continues_word(vocabulary, np.asarray(ids, np.int64))
    for position, id in enumerate(map(int, ids)):
        before = int(ids[position - 1]) if position else vocabulary.cls_id
        joins = inner[position] and _is_letter(vocabulary.id_to_token(id))
        if not joins or {id, before} & special or not _may_grow(vocabulary.id_to_token(before)):
            starts.append(position)
    return list(zip(starts, [*starts[1:], len(ids)], strict=True))


def _is_letter(token: str) -> bool:
    """Returns whether an inner token begins with a letter or digit, but no ideograph."""
    first = token.removeprefix("##")[:1]
    return first.isalnum() and not "\u3400" <= first <= "\u9fff"


def _may_grow(token: str) -> bool:
    """Returns whether the word of this token may go on: a letter, or a space before one."""
    return token == SPACE or _is_letter(token[-1:])
