"""SentencePiece vocabularies with ALBERT's preprocessing and its rule for digits before a comma.

Follows tokenization.py of the original: text is cleaned (normalize.py), segmented, and a piece
that ends in a digit and a comma is taken apart: what stands before the comma is segmented again
on its own, which puts a new "▁" in front, and this "▁" stays, also inside a word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np
import sentencepiece as spm

from albert_jax.data.vocabularies.fingerprint import SETTINGS, fingerprint, json_bytes
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.word_cache import WordCache
from albert_jax.errors import DataError

MODEL = "spiece.model"
SPACE = "\u2581"
SPECIAL = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
"""The special pieces; their ids are 0 to 4 in every ALBERT vocabulary."""

# What the original counts as pieces of English words (create_pretraining_data.py,
# `_is_start_piece_sp`): letters, and marks that are words of their own when they stand alone.
# The apostrophe and < = > are missing there too.
_MARKS = frozenset('!"#$%&()*+,-./:;?@[\\]^_`{|}~')
_ENGLISH = frozenset("abcdefghijklmnopqrstuvwxyz") | _MARKS


class SentencePiece:
    """A SentencePiece model as a `vocabulary.Vocabulary`."""

    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)

    def __init__(
        self,
        model: bytes,
        *,
        lower_case: bool = True,
        keep_accents: bool = False,
        where: str = "SentencePiece model",
    ) -> None:
        """Parses a model.

        Args:
          model: the bytes of a *.model file.
          lower_case, keep_accents: see `TextRules`.
          where: name used in messages.

        Raises:
          DataError: the bytes are no whole model, or the special pieces are not ids 0 to 4.
        """
        self._model = bytes(model)
        self._processor = _parse(self._model, where)
        self.rules = TextRules(lower_case=lower_case, keep_accents=keep_accents)
        self.size = self._processor.get_piece_size()
        self._pieces = [self._processor.id_to_piece(i) for i in range(self.size)]
        _check_special(self._pieces, where)
        self.starts_word = np.array([starts_word(piece) for piece in self._pieces])
        self.token_bytes = self._count_bytes()
        self.fingerprint = fingerprint(self.files())
        self._suspects = [p for i, p in enumerate(self._pieces) if self._processor.is_control(i)]
        if self._processor.piece_to_id(",") == self.unk_id:
            self._suspects.append(",")

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special pieces around it."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same as one int32 array of all ids and an int64 array of ids per text."""
        if self._words is None:
            return self._segment(self.rules.apply_all(texts))
        # To split at white space is to collapse it.
        rules = dataclasses.replace(self.rules, collapse_spaces=False)
        return self._words(rules.apply_all(texts))

    @cached_property
    def _words(self) -> WordCache | None:
        """What segments word by word; None where a piece, or a run of unknown characters, may
        reach across a space, or where spaces count."""
        across = any(SPACE in piece[1:] for piece in self._pieces) or SPACE not in self._pieces
        one, two, spaced = self._processor.encode(["a", "a a", "a  a"])
        alone = self.rules.collapse_spaces and two == spaced == one + one
        return None if across or not alone else WordCache(self._segment)

    def _segment(self, cleaned: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        # Lists: an array for each of many short texts takes longer to make than to fill.
        found = self._processor.encode(list(cleaned), num_threads=1)
        self._mend_unknown(cleaned, found)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = np.fromiter(chain.from_iterable(found), np.int32, int(lengths.sum()))
        return self._split_digits(ids, lengths)

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of ids; special pieces are shown by name."""
        return "".join(self._pieces[int(i)] for i in ids).replace(SPACE, " ").strip()

    def id_to_token(self, id: int) -> str:
        """The piece with this id."""
        return self._pieces[id]

    def files(self) -> dict[str, bytes]:
        """The model and its settings."""
        settings = {
            "kind": "sentencepiece",
            "file": MODEL,
            "lower_case": self.rules.lower_case,
            "keep_accents": self.rules.keep_accents,
        }
        return {MODEL: self._model, SETTINGS: json_bytes(settings)}

    @property
    def model(self) -> bytes:
        """The bytes of the *.model file."""
        return self._model

    @cached_property
    def _digit_rule(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What pieces become: counts [V], and begin [V] of each piece's ids in one flat array.

        What the rule makes of a piece depends on the piece alone, so it is looked up.
        """
        changed: dict[int, list[int]] = {}
        for i, piece in enumerate(self._pieces):
            if digits_comma(piece):
                changed[i] = self._taken_apart(piece)
        counts = np.ones(self.size, np.int64)
        begins = np.arange(self.size)
        flat = list(range(self.size))
        for i, parts in changed.items():
            counts[i], begins[i] = len(parts), len(flat)
            flat += parts
        return counts, begins, np.array(flat, np.int32)

    @cached_property
    def _ends_in_digit_comma(self) -> np.ndarray:
        return self._digit_rule[0] > 1

    def _split_digits(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self._ends_in_digit_comma[ids].any():
            return ids, lengths
        counts, begins, flat = self._digit_rule
        count = counts[ids]
        ends = np.cumsum(count)
        # Position inside each piece's replacement, added to where that replacement begins.
        inside = np.arange(ends[-1]) - np.repeat(ends - count, count)
        borders = np.concatenate([[0], np.cumsum(lengths)])
        new_borders = np.concatenate([[0], ends])[borders]
        return flat[np.repeat(begins[ids], count) + inside], np.diff(new_borders)

    def _mend_unknown(self, texts: Sequence[str], found: list[list[int]]) -> None:
        """Corrects `found` where the original's way over pieces differs from segmenting to ids.

        It turns text to pieces, applies the digit rule, and turns pieces to ids. Characters that
        no piece covers come out as one piece of their own text; if that text is the name of a
        special piece, its id is found, and if it ends in a digit and a comma, it is taken apart.
        Rare enough to be done one text at a time.
        """
        joined = "\n".join(texts)
        suspects = [name for name in self._suspects if name in joined]
        for i, text in enumerate(texts) if suspects else ():
            if any(name in text for name in suspects):
                ids: list[int] = []
                for piece in self._processor.encode(text, out_type=str):
                    id = self._processor.piece_to_id(piece)
                    if id == self.unk_id and digits_comma(piece):
                        ids += self._taken_apart(piece)
                    else:
                        ids.append(id)
                found[i] = ids

    def _taken_apart(self, piece: str) -> list[int]:
        digits = piece[:-1].replace(SPACE, "")
        parts = [*self._processor.encode(digits, out_type=str), ","]
        return [self._processor.piece_to_id(part) for part in parts]

    def _count_bytes(self) -> np.ndarray:
        count = np.array([len(p.replace(SPACE, " ").encode()) for p in self._pieces], np.int32)
        for i in range(self.size):
            if self._processor.is_control(i):
                count[i] = 0
            elif self._processor.is_unknown(i) or self._processor.is_byte(i):
                count[i] = 1
        return count


def starts_word(piece: str) -> bool:
    """Whether a piece begins a word for masking (the original's rule, as it stands there).

    True for pieces that begin with the space mark or "<", for single punctuation marks, and for
    all that hold anything but English letters and those marks (digits, other scripts).
    """
    if piece.startswith((SPACE, "<")) or piece in _MARKS:
        return True
    return not all(character.lower() in _ENGLISH for character in piece)


def digits_comma(piece: str) -> bool:
    """Whether the original segments a piece again: a digit, then a comma at its end."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def inner_digits(piece: str) -> bool:
    """Whether a piece is "digits," inside a word, which the original's rule splits oddly."""
    return digits_comma(piece) and not piece.startswith("\u2581")


def _parse(model: bytes, where: str) -> spm.SentencePieceProcessor:
    processor = spm.SentencePieceProcessor()
    mend = "give a whole SentencePiece model, or train one with `albert-jax tokenizer train`"
    if not model:
        raise DataError(f"{where}: is empty; {mend}")
    try:
        whole = processor.LoadFromSerializedProto(model)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{where}: cannot be read as a SentencePiece model ({reason}); {mend}"
        ) from error
    if whole is False or processor.get_piece_size() < 1:
        raise DataError(f"{where}: cannot be read as a SentencePiece model; {mend}")
    return processor


def _check_special(pieces: list[str], where: str) -> None:
    if tuple(pieces[: len(SPECIAL)]) == SPECIAL:
        return
    places = {piece: i for i, piece in enumerate(pieces) if piece in SPECIAL}
    found = ", ".join(
        f"{name} is {places[name]}" if name in places else f"{name} is missing"
        for i, name in enumerate(SPECIAL)
        if places.get(name) != i
    )
    raise DataError(
        f"{where}: special pieces must be <pad> 0, <unk> 1, [CLS] 2, [SEP] 3, [MASK] 4, "
        f"but {found}: train a vocabulary with `albert-jax tokenizer train`"
    )
