"""SentencePiece vocabularies with ALBERT's preprocessing and its rule for digits before a comma.

This follows the original's tokenization.py. Text is cleaned (normalize.py) and segmented. Then a
token that ends in a digit and a comma is taken apart: the part before the comma is segmented again
on its own, which puts a new word mark "▁" in front of it, and this mark stays, even inside a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice

import numpy as np
import sentencepiece as spm

from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.vocabularies.fingerprint import SETTINGS, canonical_json, fingerprint
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.word_cache import WordCache
from albert_jax.errors import DataError
from albert_jax.protobuf_wire import WireError, fields

MODEL = "spiece.model"
SPACE = "\u2581"
"""The character that SentencePiece writes for the space before a word."""
SPECIAL = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
"""The special tokens; their ids are 0 to 4 in every ALBERT vocabulary."""

# The original (create_pretraining_data.py, `_is_start_piece_sp`) forms English words of letters and
# these marks; a mark that stands alone is a word. It leaves out the apostrophe and < = > too.
_MARKS = frozenset('!"#$%&()*+,-./:;?@[\\]^_`{|}~')
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_ENGLISH = _LETTERS | _MARKS
MARKED = 1 / 4
"""Least share of the tokens of English letters that have the mark of a word's start. Mostly such
tokens with fewer marks are those of text without spaces (DNA), where every token is a word."""


class SentencePiece:
    """A SentencePiece model as a `vocabulary.Vocabulary`."""

    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
    separator_id = -1

    def __init__(
        self,
        model: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        where: str = "SentencePiece model",
    ) -> None:
        """Parses the bytes of a *.model file, which messages call `where`.

        Raises:
          DataError: The bytes are not a complete model, or the special tokens are not ids 0 to 4.
        """
        self.model = bytes(model)
        self._processor = _parse(self.model, where)
        self.rules = TextRules(lower_case=lower_case, keep_accents=keep_accents)
        self.size = self._processor.get_piece_size()
        self._tokens = [self._processor.id_to_piece(i) for i in range(self.size)]
        _check_special(self._tokens, where)
        spaced = _is_spaced(self._tokens)
        self.starts_word = np.array([not spaced or starts_word(t) for t in self._tokens])
        self.token_bytes = self._count_bytes()
        self.fingerprint = fingerprint(self.files())
        self._digits_comma = {i for i, t in enumerate(self._tokens) if ends_in_digit_comma(t)}
        self._rewritten = [t for i, t in enumerate(self._tokens) if self._processor.is_control(i)]
        if self._processor.piece_to_id(",") == self.unk_id:
            self._rewritten.append(",")

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special tokens around it."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids in one int32 array, and an int64 array with the number of ids of each text."""
        if self._words is None:
            return self._segment(self.rules.apply_all(texts))
        # The cache splits at white space, which collapses it.
        rules = dataclasses.replace(self.rules, collapse_spaces=False)
        return self._words(rules.apply_all(texts))

    @cached_property
    def _words(self) -> WordCache | None:
        """Segments word by word. None if a token, or a run of unknown characters, may reach across
        a space, or if the number of spaces matters."""
        across = any(SPACE in token[1:] for token in self._tokens) or SPACE not in self._tokens
        one, two, spaced = self._processor.encode(["a", "a a", "a  a"])
        independent = self.rules.collapse_spaces and two == spaced == one + one
        return None if across or not independent else WordCache(self._segment)

    def _segment(self, cleaned: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # These are lists, because an array for each of many short texts takes longer to make.
        encoded = self._processor.encode(list(cleaned), num_threads=1)
        # The original looks ids up for pieces of text. That differs from these ids where the digit
        # rule applies, where the text has the name of a special token, and, without a token for
        # the comma, where an unknown piece ends in a digit and a comma.
        joined = "\n".join(cleaned)
        rewritten = [name for name in self._rewritten if name in joined]
        for i, text in enumerate(cleaned):
            has_name = rewritten and any(name in text for name in rewritten)
            if has_name or not self._digits_comma.isdisjoint(encoded[i]):
                encoded[i] = [self._processor.piece_to_id(piece) for piece in self._pieces(text)]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum())), lengths

    def _pieces(self, cleaned: str) -> list[str]:
        """The pieces of a cleaned text by the original's rule for digits before a comma."""
        pieces: list[str] = []
        for piece in self._processor.encode(cleaned, out_type=str):
            if ends_in_digit_comma(piece):
                number = piece[:-1].replace(SPACE, "")
                pieces += [*self._processor.encode(number, out_type=str), ","]
            else:
                pieces.append(piece)
        return pieces

    def token_texts(self, text: str) -> list[str]:
        """The characters that each token of a text covers after cleaning; a space is " "."""
        return [piece.replace(SPACE, " ") for piece in self._pieces(self.rules.apply(text))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with special tokens by name."""
        return "".join(self._tokens[int(i)] for i in ids).replace(SPACE, " ").strip()

    def id_to_token(self, id: int) -> str:
        """The token with this id."""
        return self._tokens[id]

    def files(self) -> dict[str, bytes]:
        """The model and its settings."""
        settings = {
            "kind": "sentencepiece",
            "file": MODEL,
            "lower_case": self.rules.lower_case,
            "keep_accents": self.rules.keep_accents,
        }
        return {MODEL: self.model, SETTINGS: canonical_json(settings)}

    def _count_bytes(self) -> np.ndarray:
        count = np.array([len(p.replace(SPACE, " ").encode()) for p in self._tokens], np.int32)
        for i in range(self.size):
            if self._processor.is_control(i):
                count[i] = 0
            elif self._processor.is_unknown(i) or self._processor.is_byte(i):
                count[i] = 1
        return count


def _is_spaced(tokens: list[str]) -> bool:
    """Returns whether the text of a vocabulary has spaces between its words, see MARKED."""
    if sum(token.startswith(SPACE) for token in tokens) >= MARKED * len(tokens):
        return True
    bare = {token: token.removeprefix(SPACE).lower() for token in tokens}
    english = [token for token, word in bare.items() if len(word) > 1 and set(word) <= _LETTERS]
    marked = sum(token.startswith(SPACE) for token in english)
    return marked >= MARKED * len(english) or len(english) <= len(tokens) / 2


def starts_word(token: str) -> bool:
    """Returns whether a token begins a word for masking, by the original's rule as it stands there.

    It does if it begins with the word mark or "<", if it is a single punctuation mark, or if it has
    a character that is neither an English letter nor such a mark, such as a digit.
    """
    if token.startswith((SPACE, "<")) or token in _MARKS:
        return True
    return not all(character.lower() in _ENGLISH for character in token)


def ends_in_digit_comma(token: str) -> bool:
    """Returns whether the original takes a token apart: it ends in a digit and a comma."""
    return len(token) > 1 and token[-1] == "," and token[-2].isdigit()


def is_inner_digits_comma(token: str) -> bool:
    """Returns whether a token is "digits," inside a word, which gains a word mark when apart."""
    return ends_in_digit_comma(token) and not token.startswith(SPACE)


def _parse(model: bytes, where: str) -> spm.SentencePieceProcessor:
    processor = spm.SentencePieceProcessor()
    fix = "give a complete SentencePiece model, or train one with `albert-jax tokenizer train`"
    if not model:
        raise DataError(f"{where}: is empty; {fix}")
    if len(model) > MAX_VOCABULARY and _fields(model, where) > MAX_VOCABULARY:
        raise DataError(f"{where}: has more than {MAX_VOCABULARY:,} tokens; {fix}")
    try:
        loaded = processor.LoadFromSerializedProto(model)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{where}: cannot be read as a SentencePiece model ({reason}); {fix}"
        ) from error
    if loaded is False or processor.get_piece_size() < 1:
        raise DataError(f"{where}: cannot be read as a SentencePiece model; {fix}")
    return processor


def _fields(model: bytes, where: str) -> int:
    """The number of fields of a model, counted no further than the limit; most are its tokens."""
    position = count = 0
    # Short tokens are skipped by their length, which is faster than reading them.
    while count <= MAX_VOCABULARY and model[position : position + 1] == b"\n":
        if (length := model[position + 1 : position + 2]) >= b"\x80" or not length:
            break
        position, count = position + 2 + length[0], count + 1
    try:
        return count + sum(1 for _ in islice(fields(model[position:]), MAX_VOCABULARY + 1 - count))
    except WireError as error:
        raise DataError(f"{where}: cannot be read as a SentencePiece model ({error})") from None


def _check_special(tokens: list[str], where: str) -> None:
    if tuple(tokens[: len(SPECIAL)]) == SPECIAL:
        return
    ids = {token: i for i, token in enumerate(tokens) if token in SPECIAL}
    wrong = ", ".join(
        f"{name} is {ids[name]}" if name in ids else f"{name} is missing"
        for i, name in enumerate(SPECIAL)
        if ids.get(name) != i
    )
    raise DataError(
        f"{where}: special tokens must be <pad> 0, <unk> 1, [CLS] 2, [SEP] 3, [MASK] 4, "
        f"but {wrong}: train a vocabulary with `albert-jax tokenizer train`"
    )
