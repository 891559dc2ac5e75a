"""WordPiece vocabularies ("vocab.txt"), as the Chinese ALBERT models have.

The original's BasicTokenizer removes control characters, sets CJK characters apart, lowercases
and drops accents (NFD) if asked, and sets punctuation apart. The greedy longest match is left to
the `tokenizers` library, in which words above 200 characters are unknown. The library's own
cleaning is not used: it also drops private and unassigned characters and lowers a final sigma
differently.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.vocabularies.fingerprint import SETTINGS, canonical_json, fingerprint
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.errors import DataError

VOCAB = "vocab.txt"
MAX_WORD = 200
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens, in the order of the roles in `vocabulary.Vocabulary`."""


class WordPiece:
    """A WordPiece vocabulary as a `vocabulary.Vocabulary`."""

    separator_id = -1

    def __init__(self, content: bytes, *, lower_case: bool = True, where: str = VOCAB) -> None:
        """Reads a vocab.txt, which has one token per line; its id is the line's number from 0.

        Raises:
          DataError: The file is not UTF-8, has a token twice, or lacks a special token.
        """
        # They are counted first: a list of millions of lines takes gigabytes.
        if content.count(b"\n") > MAX_VOCABULARY:
            raise DataError(
                f"{where}: has more than {MAX_VOCABULARY:,} lines: give the vocab.txt of a model"
            )
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: invalid UTF-8 at byte {error.start}: give a vocab.txt in UTF-8"
            ) from error
        self._content, self.lower_case = bytes(content), lower_case
        self.rules = TextRules(lower_case=lower_case, keep_accents=not lower_case)
        self._tokens = [line.strip() for line in text.split("\n")]
        while self._tokens and not self._tokens[-1]:
            self._tokens.pop()
        ids = {token: i for i, token in enumerate(self._tokens)}
        missing = [name for name in SPECIAL if name not in ids]
        if missing:
            raise DataError(f"{where}: lacks {', '.join(missing)}: give the vocab.txt of a model")
        if len(ids) != len(self._tokens):
            line = next(i for i, token in enumerate(self._tokens) if ids[token] != i)
            raise DataError(
                f"{where}, line {line + 1}: {self._tokens[line]!r} occurs twice: delete one"
            )
        self.size = len(self._tokens)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[name] for name in SPECIAL
        )
        self.starts_word = np.array([not token.startswith("##") for token in self._tokens])
        self.token_bytes = np.array(list(map(_text_bytes, self._tokens)), np.int32)
        self.token_bytes[self.unk_id] = 1
        self.fingerprint = fingerprint(self.files())
        self._size_of: dict[str, int] = {}
        self._tokenizer = tokenizers.Tokenizer(
            models.WordPiece(
                ids,
                unk_token="[UNK]",
                max_input_chars_per_word=MAX_WORD,
                continuing_subword_prefix="##",
            )
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special tokens around it."""
        words = [basic_tokenize(text, self.lower_case) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(words, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids in one int32 array, and an int64 array with the number of ids of each text."""
        ids = self.encode(texts)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return np.concatenate(ids) if ids else np.zeros(0, np.int32), lengths

    def encode_with_offsets(
        self, texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `encode_flat`, and for each token the character of its text at which it begins."""
        words = [basic_tokenize(text, self.lower_case) for text in texts]
        # Only encodings with offsets are needed here; those of `encode` are faster to make.
        encodings = self._tokenizer.encode_batch(words, add_special_tokens=False)
        flat = [np.zeros((0, 2), np.int64)]
        for text, encoding in zip(texts, encodings, strict=True):
            origin = np.repeat(np.arange(len(text)), self._sizes(text))
            begins = np.fromiter((begin for begin, _ in encoding.offsets), int, len(encoding))
            flat.append(np.stack([encoding.ids, origin[begins]], axis=1))
        ids, begins = np.concatenate(flat).T
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        return ids.astype(np.int32), lengths, begins

    def _sizes(self, text: str) -> list[int]:
        """Characters that `basic_tokenize` makes of each character; none of its rules joins any."""
        sizes, lower_case = self._size_of, self.lower_case
        for character in set(text) - sizes.keys():
            sizes[character] = len(basic_tokenize(character, lower_case))
        return [sizes[character] for character in text]

    def token_texts(self, text: str) -> list[str]:
        """The characters that each token of a text covers, with a " " in front of each word."""
        words = basic_tokenize(text, self.lower_case)
        encoding = self._tokenizer.encode(words, add_special_tokens=False)
        begins = [" " * (not token.startswith("##")) for token in encoding.tokens]
        parts = [words[begin:end] for begin, end in encoding.offsets]
        return [space + part for space, part in zip(begins, parts, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with special tokens by name, and no spaces beside ideographs."""
        text = " ".join(self._tokens[int(i)] for i in ids).replace(" ##", "")
        return _BESIDE_CJK.sub("", text)

    def id_to_token(self, id: int) -> str:
        """The token with this id."""
        return self._tokens[id]

    def files(self) -> dict[str, bytes]:
        """The vocab.txt and its settings."""
        settings = {"kind": "wordpiece", "file": VOCAB, "lower_case": self.lower_case}
        return {VOCAB: self._content, SETTINGS: canonical_json(settings)}


def basic_tokenize(text: str, lower_case: bool) -> str:
    """The words of a text, separated by spaces, as the original's BasicTokenizer finds them."""
    text = text.translate(_CLEANED)
    if lower_case:
        text = unicodedata.normalize("NFD", text.lower()).translate(_UNMARKED)
    return text.translate(_SET_APART)


class _Table(dict[int, str]):
    """A table for str.translate that is filled as characters turn up."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        value = self[code] = self._rule(chr(code))
        return value


def _clean(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r" or category == "Zs":
        return " "
    if character in "\0\ufffd" or category in ("Cc", "Cf"):
        return ""
    is_cjk = any(first <= ord(character) <= last for first, last in _CJK)
    return f" {character} " if is_cjk else character


def _without_mark(character: str) -> str:
    return "" if unicodedata.category(character) == "Mn" else character


def _set_apart(character: str) -> str:
    is_mark = character in string.punctuation or unicodedata.category(character)[0] == "P"
    return f" {character} " if is_mark else character


_CLEANED, _UNMARKED, _SET_APART = _Table(_clean), _Table(_without_mark), _Table(_set_apart)

# The original lists these ideographs. Kana and hangul form words, or have spaces between them.
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
_FULL_WIDTH = ((0x3000, 0x303F), (0xFF00, 0xFFEF))
_WIDE = "".join(f"{chr(first)}-{chr(last)}" for first, last in (*_CJK, *_FULL_WIDTH))
_BESIDE_CJK = re.compile(f"(?<=[{_WIDE}]) | (?=[{_WIDE}])")
"""Spaces beside an ideograph or a full-width mark, which stand between tokens only."""


def _text_bytes(token: str) -> int:
    if token in SPECIAL or (token.startswith("[unused") and token.endswith("]")):
        return 0
    return len(token.removeprefix("##").encode())
