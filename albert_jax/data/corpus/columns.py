"""Columns beside the ids: what is known of each token and does not follow from its id.

``word_starts`` tells at which tokens a word begins, and ``labels`` are ids of a second vocabulary,
whose words stand in ``labels.txt`` of the folder, one a line. In a record (shards.py) they follow
the ids: word starts as bits, then labels as little-endian uint16 or uint32. The manifest describes
them under "columns", which a folder without columns lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax import files
from albert_jax.config import MAX_VOCABULARY
from albert_jax.errors import DataError

LABELS = "labels.txt"
"""Name of the file with the words of the labels in a prepared folder."""
MAX_BYTES = 64 << 20
"""Larger files of labels are refused."""


class Columns(NamedTuple):
    """Columns that the documents of a folder have."""

    word_starts: bool = False
    num_labels: int = 0
    """Size of the vocabulary of labels; 0 if there are none."""


NONE = Columns()


class Encoded(NamedTuple):
    """The T tokens of some documents, one document after the other, with their columns."""

    ids: np.ndarray
    """Token ids [T]."""
    lengths: np.ndarray
    """Tokens of each sentence; those of length 0 are left out."""
    counts: np.ndarray
    """Sentences of each document; documents without tokens are left out."""
    word_starts: np.ndarray | None = None
    """bool [T]: True if a word begins at the token."""
    labels: np.ndarray | None = None
    """Label of each token [T]."""


class Tokens(NamedTuple):
    """Stored tokens with their columns, which are None where the folder has none."""

    ids: np.ndarray
    word_starts: np.ndarray | None
    labels: np.ndarray | None

    def part(self, begin: int, end: int) -> Tokens:
        """The tokens from `begin` to `end`."""
        starts, labels = self.word_starts, self.labels
        return Tokens(
            self.ids[begin:end],
            None if starts is None else starts[begin:end],
            None if labels is None else labels[begin:end],
        )


def joined(runs: Sequence[Tokens]) -> Tokens:
    """Several runs of tokens as one; all have the same columns."""
    starts = [run.word_starts for run in runs if run.word_starts is not None]
    labels = [run.labels for run in runs if run.labels is not None]
    return Tokens(
        np.concatenate([run.ids for run in runs]),
        np.concatenate(starts) if starts else None,
        np.concatenate(labels) if labels else None,
    )


def id_dtype(vocab_size: int) -> np.dtype:
    """Type of a stored id: two bytes wherever the vocabulary allows it."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def to_bytes(tokens: Tokens) -> bytes:
    """The bytes of a record; ids and labels have their stored types already."""
    starts, labels = tokens.word_starts, tokens.labels
    bits = b"" if starts is None else np.packbits(starts, bitorder="little").tobytes()
    return tokens.ids.tobytes() + bits + (b"" if labels is None else labels.tobytes())


def from_bytes(record: bytes, count: int, vocab_size: int, columns: Columns) -> Tokens | None:
    """The tokens of a record, or None if it has another length than `count` tokens have."""
    dtype, label_dtype = id_dtype(vocab_size), id_dtype(columns.num_labels)
    bits_at = count * dtype.itemsize
    labels_at = bits_at + (-(-count // 8) if columns.word_starts else 0)
    if len(record) != labels_at + (count * label_dtype.itemsize if columns.num_labels else 0):
        return None
    starts = labels = None
    if columns.word_starts:
        bits = np.frombuffer(record, np.uint8, labels_at - bits_at, bits_at)
        starts = np.unpackbits(bits, count=count, bitorder="little").astype(bool)
    if columns.num_labels:
        labels = np.frombuffer(record, label_dtype, count, labels_at)
    return Tokens(np.frombuffer(record, dtype, count), starts, labels)


def read_labels(path: str) -> tuple[str, ...]:
    """The words of a file of labels. Raises DataError if it is not one distinct word a line."""
    content = files.read(path, limit=MAX_BYTES)
    if content is None:
        raise DataError(f"{path}: no such file: give the words of the labels, one a line")
    if len(content) > MAX_BYTES or content.count(b"\n") > MAX_VOCABULARY:
        raise DataError(f"{path}: has more than {MAX_VOCABULARY:,} lines: name a file of labels")
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: invalid UTF-8 at byte {error.start}: convert the file to UTF-8"
        ) from error
    words = [line.removesuffix("\r") for line in lines]
    line_of: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        if not word or line_of.setdefault(word, number) != number:
            problem = f"{word!r} is in line {line_of[word]} too" if word else "is empty"
            raise DataError(f"{path}, line {number}: {problem}: give distinct words, one a line")
    return tuple(words)


def describe(columns: Columns, folder: str) -> dict[str, Any]:
    """The value of "columns" in the manifest of a folder, whose file of labels is complete."""
    described: dict[str, Any] = {"word_starts": True} if columns.word_starts else {}
    if columns.num_labels:
        digest = files.sha256(files.join(folder, LABELS))
        described["labels"] = {"size": columns.num_labels, "file": LABELS, "sha256": digest}
    return described


def from_manifest(described: dict[str, Any] | None, folder: Path) -> tuple[Columns, str]:
    """The columns that `describe` has described, and the digest of their file of labels or "".

    Raises DataError, or for an entry of another form KeyError, TypeError or AttributeError.
    """
    if described is None:
        return NONE, ""
    labels = described.get("labels")
    size, digest = (0, "") if labels is None else (labels["size"], labels["sha256"])
    columns = Columns(described.get("word_starts", False), size)
    is_known = type(columns.word_starts) is bool and type(size) is int and any(columns)
    if not (is_known and 0 <= size <= MAX_VOCABULARY):
        raise DataError(f"{folder}: its manifest describes unknown columns: prepare the text again")
    path = folder / LABELS
    if labels is not None and not (path.is_file() and files.sha256(str(path)) == digest):
        raise DataError(
            f"{path} is missing or does not match its checksum in manifest.json: copy it again or "
            "prepare the text again"
        )
    return columns, digest
