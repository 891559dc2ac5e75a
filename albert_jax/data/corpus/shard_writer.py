"""Writes shards of prepared documents (their format: shards.py).

The bytes are a function of the documents that were added, and no file has its final name before
it is complete.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax import files
from albert_jax.data.corpus.columns import NONE, Columns, Tokens, id_dtype, joined, to_bytes
from albert_jax.data.corpus.shards import SUFFIXES, WINDOW_TOKENS
from albert_jax.errors import DataError, StorageError


class ShardWriter:
    """Writes one shard; a context manager that deletes its files if it is left by an error.

    All documents have the same ``columns``. Raises DataError for an id or label outside its
    vocabulary, and StorageError if the files cannot be written.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str,
        vocab_size: int,
        columns: Columns = NONE,
    ) -> None:
        self._directory, self._name, self._vocab_size = Path(directory), name, vocab_size
        self._columns = columns
        self._documents = 0
        # The window that is being filled: runs of parts as (tokens, sentences per part, tokens per
        # sentence). Then the index of the windows that were written.
        self._runs: list[tuple[Tokens, np.ndarray, np.ndarray]] = []
        self._tokens = 0
        self._windows: list[tuple[int, int, int, int]] = []
        self._sentences_per_part = [np.zeros(0, "<u2")]
        self._tokens_per_sentence = [np.zeros(0, "<u2")]

    def __enter__(self) -> ShardWriter:
        path = self._temporary(SUFFIXES[0])
        with self._writing():
            self._directory.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            # group_size 1 and no compression: a record is read alone, and token ids hardly shrink.
            self._writer = array_record_module.ArrayRecordWriter(
                str(path), "group_size:1,uncompressed"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):  # The error that left the block is reported.
                self._writer.close()
            for suffix in SUFFIXES:
                self._temporary(suffix).unlink(missing_ok=True)

    def add_many(
        self,
        ids: np.ndarray,
        sentence_lengths: np.ndarray,
        sentences: np.ndarray,
        word_starts: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        """Appends documents. The bytes do not depend on how documents are divided into calls.

        Args:
          ids: Token ids of all documents [tokens].
          sentence_lengths: Tokens of each sentence; those of length 0 are left out.
          sentences: Sentences of each document; documents without tokens are left out.
          word_starts: Whether a word begins at each token, if the shard has this column.
          labels: The label of each token, likewise.
        """
        ids = np.asarray(ids)
        lengths = np.asarray(sentence_lengths, dtype=np.int64)
        counts = np.asarray(sentences, dtype=np.int64)
        if not ids.size:
            return
        tokens = self._checked(ids, word_starts, labels)
        if not lengths.all():
            kept_before = np.concatenate([[0], np.cumsum(lengths != 0)])
            counts = np.diff(kept_before[np.concatenate([[0], np.cumsum(counts)])])
            lengths = lengths[lengths != 0]
        counts = counts[counts != 0]
        self._documents += len(counts)
        lengths, counts = _cut_long(lengths, counts)
        sentence_ends = np.cumsum(counts)
        token_ends = np.cumsum(lengths)[sentence_ends - 1]
        part = sentence = token = 0
        while part < len(counts):
            # The window takes as many of the following parts as fit.
            limit = token + WINDOW_TOKENS - self._tokens
            end = int(np.searchsorted(token_ends, limit, side="right"))
            if end == part:
                self._flush()
                continue
            next_token, next_sentence = int(token_ends[end - 1]), int(sentence_ends[end - 1])
            self._runs.append(
                (
                    tokens.part(token, next_token),
                    counts[part:end].astype("<u2"),
                    lengths[sentence:next_sentence].astype("<u2"),
                )
            )
            self._tokens += next_token - token
            part, sentence, token = end, next_sentence, next_token

    def _checked(
        self, ids: np.ndarray, word_starts: np.ndarray | None, labels: np.ndarray | None
    ) -> Tokens:
        """The tokens in their stored types. Raises DataError for an id or label outside."""
        columns, kinds = self._columns, (("token id", ids, self._vocab_size),)
        if labels is not None:
            kinds = (*kinds, ("label", labels, columns.num_labels))
        for what, array, size in kinds:
            for bad in (int(array.min()), int(array.max())):
                if not 0 <= bad < size:
                    raise DataError(
                        f"{self._name}, documents from {self._documents} on: {what} {bad} is "
                        f"outside the vocabulary of {size}: use the vocabulary that made the ids"
                    )
        given = Columns(word_starts is not None, 0 if labels is None else columns.num_labels)
        assert given == columns, (given, columns)
        if labels is not None:
            labels = np.asarray(labels).astype(id_dtype(columns.num_labels))
        return Tokens(ids.astype(id_dtype(self._vocab_size)), word_starts, labels)

    def close(self) -> dict[str, Any]:
        """Completes the files, gives them their names, and returns the shard's manifest entry.

        Its keys are name, documents, pieces (parts of documents), sentences, tokens, windows, and
        files with the ``bytes`` and ``sha256`` of each file name.
        """
        self._flush()
        windows = np.array(self._windows, dtype="<i8").reshape(-1, 4)
        per_part, per_sentence = self._sentences_per_part, self._tokens_per_sentence
        index = (windows, np.concatenate(per_part), np.concatenate(per_sentence))
        entries = {}
        with self._writing():
            self._writer.close()
            for suffix, array in zip(SUFFIXES[1:], index, strict=True):
                with open(self._temporary(suffix), "wb") as file:
                    np.save(file, array, allow_pickle=False)
            for suffix in SUFFIXES:
                path = self._temporary(suffix)
                digest = files.sha256(str(path), sync=True)
                entries[self._name + suffix] = {"bytes": path.stat().st_size, "sha256": digest}
            for suffix in SUFFIXES:
                os.replace(self._temporary(suffix), self._directory / (self._name + suffix))
        return {
            "name": self._name,
            "documents": self._documents,
            "pieces": int(windows[:, 0].sum()),
            "sentences": int(windows[:, 1].sum()),
            "tokens": int(windows[:, 2].sum()),
            "windows": len(windows),
            "files": entries,
        }

    def _flush(self) -> None:
        if not self._tokens:
            return
        tokens, *index = zip(*self._runs, strict=True)
        parts, sentences = map(np.concatenate, index)
        record = to_bytes(joined(tokens))
        with self._writing():
            self._writer.write(record)
        self._windows.append((len(parts), len(sentences), self._tokens, zlib.crc32(record)))
        self._sentences_per_part.append(parts)
        self._tokens_per_sentence.append(sentences)
        self._runs, self._tokens = [], 0

    def _temporary(self, suffix: str) -> Path:
        return self._directory / f"{self._name}{suffix}.unfinished"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # The writer of records raises these.
            raise StorageError(
                f"cannot write shard {self._directory / self._name}: {error}: free some space or "
                "choose another folder"
            ) from error


def _cut_long(lengths: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts documents and sentences that are longer than a window.

    From tokens of each sentence and sentences of each document it makes tokens of each sentence
    and sentences of each part.
    """
    ends = np.cumsum(counts)
    sizes = np.add.reduceat(lengths, ends - counts)
    if sizes.max() <= WINDOW_TOKENS:
        return lengths, counts
    parts: list[np.ndarray] = []
    for start, end, size in zip((ends - counts).tolist(), ends.tolist(), sizes, strict=True):
        document = lengths[start:end]
        parts += [document] if size <= WINDOW_TOKENS else _cut_document(document)
    return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)


def _cut_document(lengths: np.ndarray) -> list[np.ndarray]:
    """Cuts the sentence lengths of one document into runs of at most WINDOW_TOKENS tokens."""
    sentences: list[int] = []
    for length in lengths.tolist():
        full, rest = divmod(length, WINDOW_TOKENS)
        sentences += [WINDOW_TOKENS] * full + [rest] * (rest > 0)
    ends = np.cumsum(sentences)
    cuts, start = [], 0
    while start < len(sentences):
        tokens_before = ends[start - 1] if start else 0
        start = int(np.searchsorted(ends, tokens_before + WINDOW_TOKENS, side="right"))
        cuts.append(start)
    return np.split(np.array(sentences, np.int64), cuts[:-1])
