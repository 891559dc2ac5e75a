"""WordPiece vocabularies (``vocab.txt``), as the Chinese ALBERT models have.

The original's BasicTokenizer: control characters out, CJK characters apart, letters lowered and
accents dropped (NFD) if asked, punctuation apart. Then the greedy longest match of the
`tokenizers` library; words above 200 characters are unknown. (That library's own cleaning
differs: it also drops private and unassigned characters, and lowers a final sigma another way.)
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from albert_jax.data.vocabularies.fingerprint import SETTINGS, fingerprint, json_bytes
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.errors import DataError

VOCAB = "vocab.txt"
MAX_WORD = 200
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """A WordPiece vocabulary as a `vocabulary.Vocabulary`."""

    def __init__(self, content: bytes, *, lower_case: bool = True, where: str = VOCAB) -> None:
        """Reads a vocab.txt: one piece per line, its id the number of the line from 0.

        Raises:
          DataError: it is no UTF-8, has a piece twice, or lacks a special piece.
        """
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: invalid UTF-8 at byte {error.start}: give a vocab.txt in UTF-8"
            ) from error
        self._content, self.lower_case = bytes(content), lower_case
        self.rules = TextRules(lower_case=lower_case, keep_accents=not lower_case)
        self._pieces = [line.strip() for line in text.split("\n")]
        while self._pieces and not self._pieces[-1]:
            self._pieces.pop()
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}
        missing = [name for name in _SPECIAL if name not in self._ids]
        if missing:
            raise DataError(f"{where}: lacks {', '.join(missing)}: give the vocab.txt of a model")
        if len(self._ids) != len(self._pieces):
            line = next(i for i, p in enumerate(self._pieces) if self._ids[p] != i)
            raise DataError(
                f"{where}, line {line + 1}: {self._pieces[line]!r} stands there twice: mend it"
            )
        self.size = len(self._pieces)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            self._ids[name] for name in _SPECIAL
        )
        self.starts_word = np.array([not piece.startswith("##") for piece in self._pieces])
        self.token_bytes = np.array([_text_bytes(piece) for piece in self._pieces], np.int32)
        self.token_bytes[self.unk_id] = 1
        self.fingerprint = fingerprint(self.files())
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(
                self._ids,
                unk_token="[UNK]",
                max_input_chars_per_word=MAX_WORD,
                continuing_subword_prefix="##",
            )
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special pieces around it."""
        words = [basic(text, self.lower_case) for text in texts]
        found = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in found]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same as one int32 array of all ids and an int64 array of ids per text."""
        found = self.encode(texts)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        return np.concatenate(found) if found else np.zeros(0, np.int32), lengths

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of ids; special pieces are shown by name."""
        return " ".join(self._pieces[int(i)] for i in ids).replace(" ##", "")

    def id_to_token(self, id: int) -> str:
        """The piece with this id."""
        return self._pieces[id]

    def files(self) -> dict[str, bytes]:
        """The vocab.txt and its settings."""
        settings = {"kind": "wordpiece", "file": VOCAB, "lower_case": self.lower_case}
        return {VOCAB: self._content, SETTINGS: json_bytes(settings)}


def basic(text: str, lower_case: bool) -> str:
    """The words of a text, parted by spaces (BasicTokenizer of the original)."""
    text = text.translate(_CLEANED)
    if lower_case:
        text = unicodedata.normalize("NFD", text.lower()).translate(_UNMARKED)
    return text.translate(_PARTED)


class _Table(dict[int, str]):
    """A table for str.translate that is filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        value = self[code] = self.rule(chr(code))
        return value

    @staticmethod
    def rule(character: str) -> str:
        raise NotImplementedError


class _Cleaned(_Table):
    @staticmethod
    def rule(character: str) -> str:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            return " "
        if character in "\0\ufffd" or category in ("Cc", "Cf"):
            return ""
        return f" {character} " if _is_cjk(ord(character)) else character


class _Unmarked(_Table):
    @staticmethod
    def rule(character: str) -> str:
        return "" if unicodedata.category(character) == "Mn" else character


class _Parted(_Table):
    @staticmethod
    def rule(character: str) -> str:
        mark = character in string.punctuation or unicodedata.category(character)[0] == "P"
        return f" {character} " if mark else character


_CLEANED, _UNMARKED, _PARTED = _Cleaned(), _Unmarked(), _Parted()

# Ideographs as the original lists them; kana and hangul are written with spaces or in words.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _is_cjk(code: int) -> bool:
    return any(first <= code <= last for first, last in _CJK)


def _text_bytes(piece: str) -> int:
    if piece in _SPECIAL or (piece.startswith("[unused") and piece.endswith("]")):
        return 0
    return len(piece.removeprefix("##").encode())
