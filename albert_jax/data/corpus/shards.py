"""Prepared documents on disk: shards of token ids and the index of their lengths.

A shard NAME is four files. ``NAME.array_record`` holds one record per window: the token ids of
a run of whole documents, at most ``WINDOW_TOKENS`` of them, little-endian uint16 (uint32 for
vocabularies above 65,536). Beside it lie plain arrays that are memory-mapped when read:

- ``NAME.windows.npy`` int64 [windows, 4]: pieces, sentences, tokens and CRC-32 of each record;
- ``NAME.documents.npy`` uint16 [pieces]: sentences of each piece;
- ``NAME.sentences.npy`` uint16 [sentences]: tokens of each sentence.

A piece is a document, or one of the parts of a document longer than a window (cut between
sentences where possible). Nothing depends on row length, seed or objective. The bytes are a
function of what was added; nothing bears its final name before it is whole.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax.errors import DataError, StorageError

WINDOW_TOKENS = 65_535
"""Most tokens in a window; one less than 2^16, so that every length fits a uint16."""

_PARTS = (".array_record", ".windows.npy", ".documents.npy", ".sentences.npy")


def id_dtype(vocab_size: int) -> np.dtype:
    """Type of a stored id: two bytes wherever the vocabulary allows it."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Writes one shard; a context manager that removes what it wrote when left by an error.

    Raises DataError for ids outside the vocabulary or lengths that do not add up, StorageError
    when the disk refuses.
    """

    def __init__(self, directory: str | os.PathLike[str], name: str, vocab_size: int) -> None:
        self._directory, self._name, self._vocab_size = Path(directory), name, vocab_size
        self._dtype = id_dtype(vocab_size)
        self._ids: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._tokens = 0
        self._windows: list[tuple[int, int, int, int]] = []
        self._pieces: list[np.ndarray] = []
        self._sentences: list[np.ndarray] = []
        self._documents = 0
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._temporary(_PARTS[0]).write_bytes(b"")
        except OSError as error:
            raise self._refused(error) from error
        # group_size 1 and no compression: a record is read alone, and token ids hardly shrink.
        self._writer = self._guard(
            lambda: array_record_module.ArrayRecordWriter(
                str(self._temporary(_PARTS[0])), "group_size:1,uncompressed"
            )
        )

    def add(self, ids: np.ndarray, sentence_lengths: np.ndarray) -> None:
        """Appends one document: its ids [tokens] and the tokens of each sentence [sentences]."""
        self.add_many(ids, sentence_lengths, np.array([len(sentence_lengths)]))

    def add_many(
        self, ids: np.ndarray, sentence_lengths: np.ndarray, sentences: np.ndarray
    ) -> None:
        """Appends documents: their ids [tokens], the tokens of each sentence, and the sentences
        of each document.

        Sentences of length 0 are left out, and so are documents without tokens. The bytes do not
        depend on how documents are divided into calls.
        """
        ids = np.asarray(ids)
        lengths = np.asarray(sentence_lengths, dtype=np.int64)
        counts = np.asarray(sentences, dtype=np.int64)
        where = f"{self._name}, documents from {self._documents} on"
        if lengths.size != counts.sum() or lengths.min(initial=0) < 0 or lengths.sum() != ids.size:
            raise DataError(
                f"{where}: {int(counts.sum())} sentences with {lengths.size} lengths that add up "
                f"to {int(lengths.sum())} for {ids.size} tokens: give the lengths of the same "
                "documents"
            )
        if not ids.size:
            return
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocab_size:
            bad = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise DataError(
                f"{where}: token id {bad} is outside the vocabulary of {self._vocab_size}: "
                "use the vocabulary that made the ids, or state its size"
            )
        if not lengths.all():
            used = np.concatenate([[0], np.cumsum(lengths != 0)])
            counts = np.diff(used[np.concatenate([[0], np.cumsum(counts)])])
            lengths = lengths[lengths != 0]
        counts = counts[counts != 0]
        self._documents += len(counts)
        lengths, counts = _cut_long(lengths, counts)
        sentence_ends = np.cumsum(counts)
        token_ends = np.cumsum(lengths)[sentence_ends - 1]
        ids = ids.astype(self._dtype)
        piece = sentence = token = 0
        while piece < len(counts):
            room = token + WINDOW_TOKENS - self._tokens
            end = int(np.searchsorted(token_ends, room, side="right"))
            if end == piece:
                self._flush()
                continue
            next_token, next_sentence = int(token_ends[end - 1]), int(sentence_ends[end - 1])
            self._ids.append(ids[token:next_token])
            self._lengths.append(lengths[sentence:next_sentence].astype("<u2"))
            self._counts.append(counts[piece:end].astype("<u2"))
            self._tokens += next_token - token
            piece, sentence, token = end, next_sentence, next_token

    def close(self) -> dict[str, Any]:
        """Finishes the files, gives them their names, and returns the shard's manifest entry.

        Keys: name, documents, pieces, sentences, tokens, windows, and files (for each file name
        its ``bytes`` and ``sha256``).
        """
        self._flush()
        self._guard(self._writer.close)
        windows = np.array(self._windows, dtype="<i8").reshape(-1, 4)
        arrays = (windows, _joined(self._pieces), _joined(self._sentences))
        files = {}
        try:
            for part, array in zip(_PARTS[1:], arrays, strict=True):
                with open(self._temporary(part), "wb") as file:
                    np.save(file, array, allow_pickle=False)
            for part in _PARTS:
                path = self._temporary(part)
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                files[self._name + part] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for part in _PARTS:
                os.replace(self._temporary(part), self._directory / (self._name + part))
        except OSError as error:
            self.discard()
            raise self._refused(error) from error
        return {
            "name": self._name,
            "documents": self._documents,
            "pieces": int(windows[:, 0].sum()),
            "sentences": int(windows[:, 1].sum()),
            "tokens": int(windows[:, 2].sum()),
            "windows": len(windows),
            "files": files,
        }

    def discard(self) -> None:
        """Removes the unfinished files."""
        for part in _PARTS:
            self._temporary(part).unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            try:
                self._writer.close()
            except Exception:  # noqa: BLE001 - the first error is the one to tell
                pass
            self.discard()

    def _flush(self) -> None:
        if not self._tokens:
            return
        record = np.concatenate(self._ids).tobytes()
        pieces, sentences = np.concatenate(self._counts), np.concatenate(self._lengths)
        self._guard(lambda: self._writer.write(record))
        self._windows.append((len(pieces), len(sentences), self._tokens, zlib.crc32(record)))
        self._pieces.append(pieces)
        self._sentences.append(sentences)
        self._ids, self._lengths, self._counts, self._tokens = [], [], [], 0

    def _temporary(self, part: str) -> Path:
        return self._directory / f"{self._name}{part}.unfinished"

    def _refused(self, error: Exception) -> StorageError:
        return StorageError(
            f"cannot write shard {self._directory / self._name}: {error}: free some space or "
            "choose another folder"
        )

    def _guard(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (OSError, RuntimeError, ValueError) as error:
            self.discard()
            raise self._refused(error) from error


class Window(NamedTuple):
    """A run of pieces of documents, as it was written."""

    ids: np.ndarray
    """Token ids [tokens], uint16 or uint32."""
    pieces: np.ndarray
    """Sentences of each piece [pieces]."""
    sentences: np.ndarray
    """Tokens of each sentence [sentences]."""


class ShardReader:
    """Reads the windows of one shard; may be pickled, and opens its file when first read.

    ``entry`` is what ShardWriter.close returned. Raises DataError for a file that is missing or
    of another size, an index of another content, or a record of another content.
    """

    def __init__(
        self, directory: str | os.PathLike[str], entry: dict[str, Any], vocab_size: int
    ) -> None:
        self.directory, self.name, self.vocab_size = Path(directory), entry["name"], vocab_size
        self.files: dict[str, dict[str, Any]] = entry["files"]
        for part in _PARTS:
            self._check_size(self.name + part)
        for part in _PARTS[1:]:  # Before anything is read from them.
            self._check_sum(self.name + part)
        self._open_index()
        totals = (self.windows[:, :3].sum(axis=0) if len(self.windows) else np.zeros(3)).tolist()
        expected = [entry["pieces"], entry["sentences"], entry["tokens"]]
        found = [int(total) for total in totals]
        if found != expected or [len(self.pieces), len(self.sentences)] != expected[:2]:
            raise self._damaged(
                f"the index counts {found} pieces, sentences and tokens, the manifest {expected}"
            )

    def lengths(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Sentences of each piece and tokens of each sentence of a window."""
        piece, sentence = self._bounds[window], self._bounds[window + 1]
        return (
            self.pieces[piece[0] : sentence[0]],
            self.sentences[piece[1] : sentence[1]],
        )

    def ids(self, window: int) -> np.ndarray:
        """Token ids of a window [tokens], checked against their checksum and the vocabulary."""
        if self._reader is None:
            self._reader = array_record_module.ArrayRecordReader(
                str(self.directory / (self.name + _PARTS[0])),
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

    def window(self, window: int) -> Window:
        """A whole window."""
        return Window(self.ids(window), *self.lengths(window))

    def verify(self) -> None:
        """Compares all files with the manifest's checksums."""
        for part in _PARTS:
            self._check_sum(self.name + part)

    def _check_sum(self, name: str) -> None:
        if sha256(self.directory / name) != self.files[name]["sha256"]:
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
        arrays = []
        for part in _PARTS[1:]:
            path = self.directory / (self.name + part)
            try:
                arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
            except (ValueError, OSError) as error:
                # An empty array cannot be mapped, only read.
                try:
                    arrays.append(np.load(path, allow_pickle=False))
                except (ValueError, OSError):
                    raise self._damaged(f"{path.name} is not an array") from error
        self.windows, self.pieces, self.sentences = arrays
        if self.windows.ndim != 2 or self.windows.shape[1] != 4 or self.pieces.ndim != 1:
            raise self._damaged("its index has another shape")
        self._bounds = np.zeros((len(self.windows) + 1, 3), np.int64)
        np.cumsum(self.windows[:, :3], axis=0, out=self._bounds[1:])
        self._reader: Any = None

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"shard {self.directory / self.name} is damaged: {what}: copy it again or prepare "
            "the text again"
        )

    def __getstate__(self) -> dict[str, Any]:
        kept = ("directory", "name", "vocab_size", "files")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_index()


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut_long(lengths: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts documents longer than a window; returns the lengths of sentences, which are cut too
    where a single one is longer, and the sentences of each piece."""
    ends = np.cumsum(counts)
    sizes = np.add.reduceat(lengths, ends - counts)
    if sizes.max() <= WINDOW_TOKENS:
        return lengths, counts
    new_lengths, new_counts = [], []
    for start, end, size in zip((ends - counts).tolist(), ends.tolist(), sizes, strict=True):
        pieces = [lengths[start:end]] if size <= WINDOW_TOKENS else _pieces(lengths[start:end])
        new_lengths += pieces
        new_counts += [len(piece) for piece in pieces]
    return np.concatenate(new_lengths), np.array(new_counts, np.int64)


def _pieces(lengths: np.ndarray) -> list[np.ndarray]:
    """Cuts one document's sentence lengths into runs of at most WINDOW_TOKENS tokens."""
    parts: list[int] = []
    for length in lengths.tolist():
        full, rest = divmod(length, WINDOW_TOKENS)
        parts += [WINDOW_TOKENS] * full + [rest] * (rest > 0)
    lengths = np.array(parts, dtype=np.int64)
    ends = np.cumsum(lengths)
    cuts, start = [], 0
    while start < lengths.size:
        done = ends[start - 1] if start else 0
        start = int(np.searchsorted(ends, done + WINDOW_TOKENS, side="right"))
        cuts.append(start)
    return np.split(lengths, cuts[:-1])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, "<u2")
