"""Shards of prepared documents: token ids and an index of their lengths.

A shard NAME consists of four files. ``NAME.array_record`` holds one record per window. A window is
a run of complete parts of documents with at most 65,535 tokens; its record is their token ids as
little-endian uint16 (uint32 for vocabularies above 65,536), and after them their columns if the
folder has any (columns.py). Beside it lie plain arrays that are memory-mapped:

- ``NAME.windows.npy`` int64 [windows, 4]: parts, sentences, tokens and CRC-32 of each record;
- ``NAME.documents.npy`` uint16 [parts]: sentences of each part;
- ``NAME.sentences.npy`` uint16 [sentences]: tokens of each sentence.

A part is a document, or a piece of one that is longer than a window; such a document is cut
between sentences where possible. The files depend neither on row length, seed nor objective.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax import files
from albert_jax.data.corpus.columns import NONE, Columns, Tokens, from_bytes
from albert_jax.errors import DataError

SUFFIXES = (".array_record", ".windows.npy", ".documents.npy", ".sentences.npy")
"""Endings of the names of a shard's files."""


WINDOW_TOKENS = 65_535
"""Most tokens in a window; one less than 2^16, so that every length fits a uint16."""


class DamagedRecord(DataError):
    """A record whose bytes are not those that were written."""

    window = -1
    """Number of its window in the corpus, where a corpus has read it."""


class ShardReader:
    """Reads the windows of one shard. It may be pickled, and opens its records when first read.

    ``entry`` is the shard's entry in the manifest, as ShardWriter.close returned it. ``windows``,
    ``sentences_per_part`` and ``tokens_per_sentence`` are the index. Raises DataError if a file is
    missing or has another size, or if the index has other contents.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        entry: dict[str, Any],
        vocab_size: int,
        columns: Columns = NONE,
    ) -> None:
        self.directory, self.entry, self.vocab_size = Path(directory), entry, vocab_size
        self.columns = columns
        if not re.fullmatch(r"[\w.-]+", entry["name"]):
            raise DataError(f"{directory}: its manifest names a shard elsewhere: prepare it again")
        self._path = str(self.directory / entry["name"])
        for suffix in SUFFIXES:
            name, path = entry["name"] + suffix, Path(self._path + suffix)
            expected = entry["files"][name]
            if not path.is_file():
                raise self._damaged(f"{name} is missing")
            if (size := path.stat().st_size) != expected["bytes"]:
                raise self._damaged(f"{name} has {size} bytes instead of {expected['bytes']}")
            # The index is checked before anything is read from it, a record when it is read.
            if suffix != SUFFIXES[0] and files.sha256(str(path)) != expected["sha256"]:
                raise self._damaged(f"{name} does not match its checksum in manifest.json")
        try:
            with files.storage_errors(self._path):
                self.windows, self.sentences_per_part, self.tokens_per_sentence = (
                    # An empty array cannot be mapped.
                    np.load(self._path + suffix, mmap_mode="r" if entry["windows"] else None)
                    for suffix in SUFFIXES[1:]
                )
        except (ValueError, EOFError, SyntaxError) as error:
            raise self._damaged(f"its index is not an array ({error})") from error
        self._check_index()
        # int64 [windows + 1, 3]: parts, sentences and tokens before each window.
        self._bounds = np.zeros((len(self.windows) + 1, 3), np.int64)
        np.cumsum(self.windows[:, :3], axis=0, out=self._bounds[1:])
        self._records: Any = None

    def _check_index(self) -> None:
        """Raises DataError unless the numbers of the index fit each other and the manifest.

        They come from a file, and decide how much memory rows and plans take.
        """
        entry, windows = self.entry, self.windows
        lengths = (self.sentences_per_part, self.tokens_per_sentence)
        shapes = windows.shape == (entry["windows"], 4) and all(a.ndim == 1 for a in lengths)
        types = [array.dtype for array in (windows, *lengths)] == ["<i8", "<u2", "<u2"]
        if not (shapes and types):
            raise self._damaged("its index has arrays of another form")
        per_window, parts, sentences = windows[:, :3], *(a.sum(dtype=np.int64) for a in lengths)
        limits = per_window.min(initial=0) < 0 or per_window.max(initial=0) > WINDOW_TOKENS
        totals = [len(lengths[0]), len(lengths[1]), entry["tokens"]]
        sums = [*per_window.sum(axis=0).tolist(), int(parts), int(sentences)]
        if limits or sums != [*totals, *totals[1:]]:
            raise self._damaged("the numbers of its index contradict each other")

    def lengths(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Sentences of each part of a window, and tokens of each of its sentences."""
        start, end = self._bounds[window], self._bounds[window + 1]
        return (
            self.sentences_per_part[start[0] : end[0]],
            self.tokens_per_sentence[start[1] : end[1]],
        )

    def ids(self, window: int) -> np.ndarray:
        """Token ids of a window [tokens]. Raises as `tokens`."""
        return self.tokens(window).ids

    def tokens(self, window: int) -> Tokens:
        """The tokens of a window. Raises DamagedRecord, or DataError for a strange id or label."""
        try:
            if self._records is None:
                self._records = array_record_module.ArrayRecordReader(
                    self._path + SUFFIXES[0], "readahead_buffer_size:0,max_parallelism:0"
                )
            (record,) = self._records.read([window])
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise self._damaged(f"record {window} cannot be read", DamagedRecord) from error
        if zlib.crc32(record) != self.windows[window, 3]:
            raise self._damaged(f"record {window} does not match its checksum", DamagedRecord)
        count = int(self.windows[window, 2])
        tokens = from_bytes(record, count, self.vocab_size, self.columns)
        if tokens is None:
            raise self._damaged(f"record {window} has another length than the index", DamagedRecord)
        if int(tokens.ids.max(initial=0)) >= self.vocab_size:
            raise DataError(
                f"{self._path}, record {window}: token id {int(tokens.ids.max())} is outside the "
                f"vocabulary of {self.vocab_size}: prepare the text again with this vocabulary"
            )
        if tokens.labels is not None and int(tokens.labels.max()) >= self.columns.num_labels:
            raise DataError(
                f"{self._path}, record {window}: label {int(tokens.labels.max())} is outside the "
                f"{self.columns.num_labels} labels of the folder: prepare the text again"
            )
        return tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.directory, self.entry, self.vocab_size, self.columns)

    def _damaged(self, problem: str, kind: type[DataError] = DataError) -> DataError:
        fix = "copy it again or prepare the text again"
        if self._path.startswith(files.cache_folder("data")):
            fix = f"delete {self.directory}, and it is copied from the bucket again"
        return kind(f"shard {self._path} is damaged: {problem}: {fix}")
