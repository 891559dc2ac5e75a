"""A vocabulary of bare ids, for token ids that come without text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.vocabularies.fingerprint import SETTINGS, canonical_json, fingerprint
from albert_jax.errors import DataError

NAMES = ("pad_id", "cls_id", "sep_id", "mask_id", "unk_id")


class IdRange:
    """The ids from 0 to size - 1 as a `vocabulary.Vocabulary`. Each is a word of one byte."""

    separator_id = -1

    def __init__(
        self, size: int, *, pad_id: int, cls_id: int, sep_id: int, mask_id: int, unk_id: int = -1
    ) -> None:
        """Makes a vocabulary of `size` ids.

        Raises:
          DataError: There are too many ids, a special one lies outside, or two are the same.
        """
        if not 0 < size <= MAX_VOCABULARY:
            raise DataError(f"a vocabulary of {size} ids: give 1 to {MAX_VOCABULARY:,}")
        special = dict(zip(NAMES, (pad_id, cls_id, sep_id, mask_id, unk_id), strict=True))
        for name, id in special.items():
            if not 0 <= id < size and not (name == "unk_id" and id == -1):
                raise DataError(
                    f"{name} {id} is outside the vocabulary of {size}: change one of them"
                )
        used = [id for id in special.values() if id >= 0]
        if len(set(used)) != len(used):
            raise DataError(f"special ids {special} must differ: change one of them")
        self.size = size
        self.pad_id, self.cls_id, self.sep_id, self.mask_id, self.unk_id = special.values()
        self.starts_word = np.ones(size, bool)
        self.token_bytes = np.ones(size, np.int32)
        self.token_bytes[used] = 0
        self.fingerprint = fingerprint(self.files())

    @classmethod
    def from_settings(cls, settings: dict[str, Any], where: str) -> IdRange:
        """Reads the settings that `files` has written. Raises DataError if one is missing."""
        try:
            size, *special = (settings[name] for name in ("size", *NAMES))
            if not all(type(value) is int for value in (size, *special)):
                raise TypeError
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: lacks integers for the size and the special ids") from error
        return cls(size, **dict(zip(NAMES, special, strict=True)))

    def encode(self, texts: Sequence[str]) -> NoReturn:
        """Raises DataError, because there is no text."""
        raise DataError(
            "this vocabulary has ids without text: only pretrain, evaluate and data prepare --ids "
            "can use it"
        )

    encode_flat = encode

    def token_texts(self, text: str) -> NoReturn:
        """Raises DataError, because there is no text."""
        self.encode([text])

    def decode(self, ids: Sequence[int]) -> str:
        """The ids as numbers, with special ones by name."""
        return " ".join(self.id_to_token(int(i)) for i in ids)

    def id_to_token(self, id: int) -> str:
        """The id as a number, or the name of a special id."""
        for name in NAMES:
            if getattr(self, name) == id:
                return f"[{name.removesuffix('_id').upper()}]"
        return str(id)

    def files(self) -> dict[str, bytes]:
        """The settings alone."""
        settings = {name: getattr(self, name) for name in ("size", *NAMES)}
        return {SETTINGS: canonical_json({"kind": "ids", **settings})}
