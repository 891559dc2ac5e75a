"""The interface of a vocabulary, and how its files are read and written.

A vocabulary is written as a folder with "vocabulary.json", which names its kind, beside its own
files. Files of other programs are read too: a SentencePiece model, a WordPiece vocab.txt, or a
folder that holds one of them, with its "tokenizer_config.json" if there is one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from albert_jax import files
from albert_jax.data.vocabularies.fingerprint import SETTINGS
from albert_jax.errors import DataError

MAX_BYTES = 64 << 20
"""Larger vocabulary files are refused."""
MAX_SETTINGS = 1 << 20
"""Largest file of settings in bytes."""


class Vocabulary(Protocol):
    """Tokens with ids. V is its size. Texts are given to it as they are, before any cleaning."""

    size: int
    pad_id: int
    unk_id: int
    """Id of text that no token covers, or -1 if the vocabulary has none."""
    cls_id: int
    """Id of [CLS], or -1 if sequences have neither [CLS] nor [SEP]."""
    sep_id: int
    mask_id: int
    separator_id: int
    """Id of a token between words, which is never masked, or -1 if the vocabulary has none."""
    starts_word: np.ndarray
    """bool [V]: whether the token begins a word, as n-gram and whole-word masking count words."""
    token_bytes: np.ndarray
    """int32 [V]: bytes of text that the token stands for; special tokens have 0, unknown has 1."""
    fingerprint: str
    """Hex SHA-256 over `files()`. Two vocabularies are the same if and only if it is the same."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special tokens around it."""
        ...

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids in one int32 array, and an int64 array with the number of ids of each text."""
        ...

    def token_texts(self, text: str) -> list[str]:
        """The characters that each token of a text covers, also of unknown ones; a space is " "."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with special tokens by name."""
        ...

    def id_to_token(self, id: int) -> str:
        """The token with this id."""
        ...

    def files(self) -> dict[str, bytes]:
        """The contents of the vocabulary's files by name."""
        ...


def load(path: str) -> Vocabulary:
    """Loads a vocabulary: a folder, a *.model, a vocab.txt, or the name of a table of symbols.

    Unless its settings say otherwise, it has lower case and drops accents, as the English ALBERT
    models do.

    Raises:
      DataError: There is no complete vocabulary.
    """
    from albert_jax.data.vocabularies import symbols

    if str(path).partition("+")[0] in symbols.NAMED and not os.path.exists(str(path)):
        return symbols.from_spec(str(path))
    settings, file = _settings_and_file(str(path))
    kind = settings.get("kind")
    if kind == "ids":
        from albert_jax.data.vocabularies.id_range import IdRange

        return IdRange.from_settings(settings, where=file)
    content = files.read(file, limit=MAX_BYTES)
    if content is None:
        raise DataError(f"{path}: no vocabulary there: give a folder, a *.model or a vocab.txt")
    if len(content) > MAX_BYTES:
        raise DataError(f"{file}: has more than {MAX_BYTES} bytes: name the file of a vocabulary")
    lower_case = bool(settings.get("lower_case", True))
    if kind == "sentencepiece":
        from albert_jax.data.vocabularies.sentencepiece import SentencePiece

        keep_accents = bool(settings.get("keep_accents", False))
        return SentencePiece(content, lower_case=lower_case, keep_accents=keep_accents, where=file)
    if kind == "wordpiece":
        from albert_jax.data.vocabularies.wordpiece import WordPiece

        return WordPiece(content, lower_case=lower_case, where=file)
    if kind == "symbols":
        return symbols.parse(content, file)
    raise DataError(f"{file}: unknown kind of vocabulary {kind!r}: make the vocabulary again")


def _settings_and_file(path: str) -> tuple[dict[str, Any], str]:
    """The settings of a vocabulary, and the path of its main file."""
    if not files.is_folder(path):
        folder, name = os.path.dirname(path) or ".", os.path.basename(path)
        beside = files.join(folder, SETTINGS)
        saved = files.read(beside, limit=MAX_SETTINGS)
        if saved is not None and (ours := _parsed(beside, saved)).get("file") == name:
            return ours, path
        settings = _settings_of_transformers(folder)
        kind = "wordpiece" if os.path.basename(path).endswith(".txt") else "sentencepiece"
        return settings | {"kind": kind}, path
    saved = files.read(files.join(path, SETTINGS), limit=MAX_SETTINGS)
    if saved is None:
        settings = _settings_of_transformers(path) | _kind_and_file(path)
    else:
        settings = _parsed(files.join(path, SETTINGS), saved)
    name = str(settings.get("file", SETTINGS))
    if "/" in name:
        raise DataError(f"{path}: the settings name a file elsewhere: make the vocabulary again")
    return settings, files.join(path, name)


def save(vocabulary: Vocabulary, directory: str) -> None:
    """Writes the vocabulary's files, the settings last."""
    for name, content in sorted(vocabulary.files().items(), key=lambda item: item[0] == SETTINGS):
        files.write(files.join(str(directory), name), content)


def _parsed(path: str, content: bytes) -> dict[str, Any]:
    try:
        if len(content) > MAX_SETTINGS:
            raise ValueError("larger than 1 MB")
        settings = json.loads(content)
        if not isinstance(settings, dict):
            raise ValueError("not an object")
        return settings
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not readable as JSON settings ({error}): make it again"
        ) from error


def _settings_of_transformers(folder: str) -> dict[str, Any]:
    """The case and accents of a tokenizer of Transformers in a folder, if there is one."""
    path = files.join(folder, "tokenizer_config.json")
    content = files.read(path, limit=MAX_SETTINGS)
    config = {} if content is None else _parsed(path, content)
    names = {"do_lower_case": "lower_case", "keep_accents": "keep_accents"}
    return {ours: bool(config[theirs]) for theirs, ours in names.items() if theirs in config}


def _kind_and_file(folder: str) -> dict[str, Any]:
    """Kind and file of the one vocabulary that lies in a folder without settings of ours."""
    names = files.names(folder)
    models = [name for name in names if name.endswith(".model")]
    tables = [name for name in names if name.startswith("vocab") and name.endswith(".txt")]
    if "spiece.model" in names or len(models) == 1:
        file = "spiece.model" if "spiece.model" in names else models[0]
        return {"kind": "sentencepiece", "file": file}
    if len(tables) == 1:
        return {"kind": "wordpiece", "file": tables[0]}
    unread = "; tokenizer.json is not read" if "tokenizer.json" in names else ""
    raise DataError(
        f"{folder}: holds no {SETTINGS}, no single *.model and no single vocab*.txt{unread}: "
        "give the folder of a vocabulary"
    )


def special_ids(vocabulary: Vocabulary) -> list[int]:
    """Ids of the special tokens that the vocabulary has; none of them is ever a prediction."""
    names = ("pad", "unk", "cls", "sep", "mask")
    ids = (getattr(vocabulary, f"{name}_id") for name in names)
    return [id for id in ids if id >= 0]
