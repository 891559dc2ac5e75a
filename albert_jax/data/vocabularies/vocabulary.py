"""What data code knows of a vocabulary, and how its files are read and written.

A folder with ``vocabulary.json`` beside the vocabulary's own files is the form that is written;
the settings name the kind. What others publish is read too: a SentencePiece model, a WordPiece
``vocab.txt``, or a folder that holds one of them (with its ``tokenizer_config.json``, if any).
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
"""Largest vocabulary file that is read."""


class Vocabulary(Protocol):
    """Pieces with ids. V is its size; "text" is what a person wrote, before any cleaning."""

    size: int
    pad_id: int
    unk_id: int
    """Id of what no piece covers; -1 if the vocabulary has none."""
    cls_id: int
    sep_id: int
    mask_id: int
    starts_word: np.ndarray
    """bool [V]: the piece begins a word, as n-gram and whole-word masking count words."""
    token_bytes: np.ndarray
    """int32 [V]: bytes of text that the piece stands for (special pieces 0, unknown 1)."""
    fingerprint: str
    """Hex SHA-256 over files(): two vocabularies are the same if and only if it is."""

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """int32 ids of each text, without special pieces around it."""
        ...

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The same as one int32 array of all ids and an int64 array of ids per text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text of ids; special pieces are shown by name."""
        ...

    def id_to_token(self, id: int) -> str:
        """The piece with this id."""
        ...

    def files(self) -> dict[str, bytes]:
        """Everything that `save` writes, by file name."""
        ...


def load(path: str) -> Vocabulary:
    """Reads a vocabulary: a folder or one file, SentencePiece (``*.model``) or ``vocab.txt``.

    Without a word on it in the settings it has lower case and drops accents, as the English
    ALBERT models.

    Raises:
      DataError: nothing there, or something that is no whole vocabulary.
    """
    path = str(path)
    folder = files.is_folder(path)
    settings: dict[str, Any] = {}
    if folder:
        saved = files.read(files.join(path, SETTINGS))
        if saved is not None:
            settings = _settings(files.join(path, SETTINGS), saved)
        else:
            settings = _settings_of_others(path)
        file = files.join(path, str(settings.get("file", SETTINGS)))
        if "/" in str(settings.get("file", "")):
            raise DataError(f"{path}: the settings name a file elsewhere: make the vocabulary anew")
    else:
        file = path
        settings = _case_of_others(os.path.dirname(path) or ".")
        settings["kind"] = (
            "wordpiece" if os.path.basename(path).endswith(".txt") else "sentencepiece"
        )
    kind = settings.get("kind")
    if kind == "ids":
        from albert_jax.data.vocabularies.id_range import IdRange

        return IdRange.from_settings(settings, where=file)
    content = files.read(file)
    if content is None:
        raise DataError(f"{path}: no vocabulary there: give a folder, a *.model or a vocab.txt")
    if len(content) > MAX_BYTES:
        raise DataError(f"{file}: {len(content)} bytes; a vocabulary has at most {MAX_BYTES}")
    lower = bool(settings.get("lower_case", True))
    accents = bool(settings.get("keep_accents", False))
    if kind == "sentencepiece":
        from albert_jax.data.vocabularies.sentencepiece import SentencePiece

        return SentencePiece(content, lower_case=lower, keep_accents=accents, where=file)
    if kind == "wordpiece":
        from albert_jax.data.vocabularies.wordpiece import WordPiece

        return WordPiece(content, lower_case=lower, where=file)
    raise DataError(f"{file}: unknown kind of vocabulary {kind!r}")


def save(vocabulary: Vocabulary, directory: str) -> None:
    """Writes the vocabulary's files, the settings last."""
    for name, content in sorted(vocabulary.files().items(), key=lambda item: item[0] == SETTINGS):
        files.write(files.join(str(directory), name), content)


def _settings(path: str, content: bytes) -> dict[str, Any]:
    try:
        if len(content) > 1 << 20:
            raise ValueError("larger than 1 MB")
        settings = json.loads(content)
        if not isinstance(settings, dict):
            raise ValueError("not an object")
        return settings
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON settings ({error}): make it anew") from error


def _case_of_others(path: str) -> dict[str, Any]:
    """What the settings of a tokenizer of Transformers in this folder say, if there are any."""
    settings: dict[str, Any] = {}
    config = files.join(path, "tokenizer_config.json")
    content = files.read(config)
    if content is not None:
        given = _settings(config, content)
        if "do_lower_case" in given:
            settings["lower_case"] = bool(given["do_lower_case"])
        if "keep_accents" in given:
            settings["keep_accents"] = bool(given["keep_accents"])
    return settings


def _settings_of_others(path: str) -> dict[str, Any]:
    settings = _case_of_others(path)
    here = files.names(path)
    models = [name for name in here if name.endswith(".model")]
    tables = [name for name in here if name.startswith("vocab") and name.endswith(".txt")]
    if "spiece.model" in here or len(models) == 1:
        settings["kind"] = "sentencepiece"
        settings["file"] = "spiece.model" if "spiece.model" in here else models[0]
    elif len(tables) == 1:
        settings.update(kind="wordpiece", file=tables[0])
    else:
        unread = "; tokenizer.json is not read" if "tokenizer.json" in here else ""
        raise DataError(
            f"{path}: holds no {SETTINGS}, no single *.model and no single vocab*.txt{unread}: "
            "give the folder of a vocabulary"
        )
    return settings
