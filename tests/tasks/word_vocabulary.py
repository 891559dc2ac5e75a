"""A vocabulary of whole words and letters for tests that need no trained one."""

from __future__ import annotations

import numpy as np

from albert_jax.data.vocabularies.normalize import TextRules

SPECIAL = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


class Words:
    """Each distinct word of the texts is one token; unknown words are ``unk_id``."""

    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
    separator_id = -1
    rules = TextRules()

    def __init__(self, *texts: str):
        words = sorted({word for text in texts for word in self.rules.apply(text).split()})
        self._tokens = [*SPECIAL, *("\u2581" + word for word in words)]
        self._ids = {token: i for i, token in enumerate(self._tokens)}
        self.size = len(self._tokens)
        self.starts_word = np.array([p.startswith("\u2581") for p in self._tokens])

    def encode(self, texts) -> list[np.ndarray]:
        return [
            np.array(
                [self._ids.get("\u2581" + w, self.unk_id) for w in self.rules.apply(t).split()],
                np.int32,
            )
            for t in texts
        ]

    def token_texts(self, text) -> list[str]:
        return [" " + word for word in self.rules.apply(text).split()]

    def decode(self, ids) -> str:
        return " ".join(self._tokens[id].removeprefix("\u2581") for id in ids)

    def id_to_token(self, id: int) -> str:
        return self._tokens[id]
