"""Shards of prepared documents: token ids and an index of their lengths.

A shard NAME consists of four files. ``NAME.array_record`` holds one record per window. A window is
a run of complete parts of documents with at most 65,535 tokens; its record is their token ids as
little-endian uint16 (uint32 for vocabularies above 65,536). Beside it lie plain arrays that are
memory-mapped:

- ``NAME.windows.npy`` int64 [windows, 4]: parts, sentences, tokens and CRC-32 of each record;
- ``NAME.documents.npy`` uint16 [parts]: sentences of each part;
- ``NAME.sentences.npy`` uint16 [sentences]: tokens of each sentence.

A part is a document, or a piece of one that is longer than a window; such a document is cut
between sentences where possible. The files depend neither on row length, seed nor objective.
"""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax import files
from albert_jax.errors import DataError, StorageError

SUFFIXES = (".array_record", ".windows.npy", ".documents.npy", ".sentences.npy")
"""Endings of the names of a shard's files."""


def id_dtype(vocab_size: int) -> np.dtype:
    """Type of a stored token id: two bytes wherever the vocabulary allows it."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardReader:
    """Reads the windows of one shard. It may be pickled, and opens its records when first read.

    ``entry`` is the shard's entry in the manifest, as ShardWriter.close returned it. Raises
    DataError if a file is missing or has another size, or if the index has other contents.
    """

    def __init__(
        self, directory: str | os.PathLike[str], entry: dict[str, Any], vocab_size: int
    ) -> None:
        self.directory, self.name, self.vocab_size = Path(directory), entry["name"], vocab_size
        self.files: dict[str, dict[str, Any]] = entry["files"]
        for suffix in SUFFIXES:
            self._check_size(self.name + suffix)
        for suffix in SUFFIXES[1:]:  # The index is checked before anything is read from it.
            self._check_digest(self.name + suffix)
        self._open_index()
        totals = self._bounds[-1].tolist()
        expected = [entry["pieces"], entry["sentences"], entry["tokens"]]
        lengths = [len(self.sentences_per_part), len(self.tokens_per_sentence)]
        if totals != expected or lengths != expected[:2]:
            raise self._damaged(
                f"the index counts {totals} parts, sentences and tokens, the manifest {expected}"
            )

    def lengths(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Sentences of each part of a window, and tokens of each of its sentences."""
        start, end = self._bounds[window], self._bounds[window + 1]
        return (
            self.sentences_per_part[start[0] : end[0]],
            self.tokens_per_sentence[start[1] : end[1]],
        )

    def num_tokens(self, window: int) -> int:
        """Number of tokens of a window."""
        return int(self.windows[window, 2])

    def ids(self, window: int) -> np.ndarray:
        """Token ids of a window [tokens]. Raises DataError if its record is damaged."""
        if self._reader is None:
            self._reader = array_record_module.ArrayRecordReader(
                str(self.directory / (self.name + SUFFIXES[0])),
                "readahead_buffer_size:0,max_parallelism:0",
            )
        try:
            (record,) = self._reader.read([window])
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise self._damaged(f"record {window} cannot be read") from error
        if zlib.crc32(record) != self.windows[window, 3]:
            raise self._damaged(f"record {window} does not fit its checksum")
        ids = np.frombuffer(record, id_dtype(self.vocab_size))
        if ids.size != self.windows[window, 2]:
            raise self._damaged(
                f"record {window} has {ids.size} tokens, its index {self.windows[window, 2]}"
            )
        if ids.size and int(ids.max()) >= self.vocab_size:
            raise DataError(
                f"{self.directory / self.name}, record {window}: token id {int(ids.max())} is "
                f"outside the vocabulary of {self.vocab_size}: prepare the text again with this "
                "vocabulary"
            )
        return ids

    def verify(self) -> None:
        """Compares all files with the digests in the manifest; raises DataError if one differs."""
        for suffix in SUFFIXES:
            self._check_digest(self.name + suffix)

    def _check_digest(self, name: str) -> None:
        if files.sha256(str(self.directory / name)) != self.files[name]["sha256"]:
            raise self._damaged(f"{name} does not fit its checksum in manifest.json")

    def _check_size(self, name: str) -> None:
        path = self.directory / name
        if name not in self.files:
            raise self._damaged(f"manifest.json has no entry for {name}")
        if not path.is_file():
            raise self._damaged(f"{name} is missing")
        size, expected = path.stat().st_size, self.files[name]["bytes"]
        if size != expected:
            raise self._damaged(f"{name} has {size} bytes instead of {expected}")

    def _open_index(self) -> None:
        arrays = [self._load(self.name + suffix) for suffix in SUFFIXES[1:]]
        self.windows, self.sentences_per_part, self.tokens_per_sentence = arrays
        if self.windows.ndim != 2 or self.windows.shape[1] != 4 or arrays[1].ndim != 1:
            raise self._damaged("its index has another shape")
        # int64 [windows + 1, 3]: parts, sentences and tokens before each window.
        self._bounds = np.zeros((len(self.windows) + 1, 3), np.int64)
        np.cumsum(self.windows[:, :3], axis=0, out=self._bounds[1:])
        self._reader: Any = None

    def _load(self, name: str) -> np.ndarray:
        path = self.directory / name
        try:
            try:
                return np.load(path, mmap_mode="r", allow_pickle=False)
            except ValueError:  # An empty array cannot be mapped, only read.
                return np.load(path, allow_pickle=False)
        except (ValueError, OSError) as error:
            if getattr(error, "errno", None) == errno.EMFILE:
                raise StorageError(
                    f"{path}: too many open files, a shard needs four: raise `ulimit -n`"
                ) from error
            raise self._damaged(f"{name} is not an array") from error

    def _damaged(self, problem: str) -> DataError:
        return DataError(
            f"shard {self.directory / self.name} is damaged: {problem}: copy it again or prepare "
            "the text again"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("directory", "name", "vocab_size", "files")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_index()
