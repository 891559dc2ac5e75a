"""Texts as tokens, in which [MASK] is the mask token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError

MASK = "[MASK]"
"""Mask as users write it, whatever the vocabulary calls its own token."""

_ANCHORS = ("a", "the", "1")


def check_texts(texts: Any, *, several: bool = False) -> None:
    """Raises ConfigError for a string in place of a list, which would be read by letters, and for
    what is not a string in the list or, with `several`, not a list of strings."""
    if isinstance(texts, str | bytes):
        raise ConfigError(f"{texts[:40]!r} is one text where a list is taken: write [TEXT]")
    for number, text in enumerate(() if texts is None else texts, start=1):
        for part in text if several and isinstance(text, list | tuple) else [text]:
            if not isinstance(part, str):
                kind = type(part).__name__
                raise ConfigError(f"text {number} is {kind}, not a string: mend it or leave it out")


def tokenize(vocabulary: Vocabulary, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The tokens and ids of each text, by "text", "tokens" and "ids"; see `encode_masked`."""
    found = []
    for text in texts:
        ids = encode_masked(text, vocabulary).tolist()
        tokens = [vocabulary.id_to_token(id) for id in ids]
        found.append({"text": text, "tokens": tokens, "ids": ids})
    return found


def encode_masked(text: str, vocabulary: Vocabulary) -> np.ndarray:
    """Ids of a text, int32, without special tokens at its ends; every [MASK] is one mask token."""
    first, *rest = text.split(MASK)
    parts: list[Any] = [*vocabulary.encode([first])]
    for part in rest:
        parts += [[vocabulary.mask_id], _encode_after_mask(part, vocabulary)]
    return np.concatenate([np.asarray(part, np.int32) for part in parts])


def _encode_after_mask(part: str, vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the text behind a mask.

    Without a space between, as in "[MASK].", the first token continues the masked word, but
    encoded alone it would begin a new word, which the model has never seen there. The text is
    therefore encoded behind a word whose own tokens do not change, and that word is cut off.
    """
    if part and not part[0].isspace():
        for anchor in _ANCHORS:
            alone, together = vocabulary.encode([anchor, anchor + part])
            if np.array_equal(together[: alone.size], alone):
                return together[alone.size :]
    return vocabulary.encode([part])[0]
