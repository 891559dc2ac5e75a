"""The words of a text as spans of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.inference.masked_lm import special_ids


def word_spans(vocabulary: Vocabulary, ids: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """The first token of each word, and the one behind its last.

    Special tokens, punctuation and Chinese characters are words of their own.
    """
    special = set(special_ids(vocabulary))
    starts: list[int] = []
    for position, id in enumerate(map(int, ids)):
        before = int(ids[position - 1]) if position else vocabulary.cls_id
        joins = not vocabulary.starts_word[id] and _is_letter(vocabulary.id_to_token(id))
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
