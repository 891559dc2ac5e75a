"""A prepared folder, opened for reading.

``manifest.json`` is written last, so a folder without one is incomplete. It names the shards of
each split with their counts and checksums, and the vocabulary that made the ids.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from albert_jax import files
from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.corpus import columns
from albert_jax.data.corpus.columns import Tokens, id_dtype
from albert_jax.data.corpus.shards import DamagedRecord, ShardReader
from albert_jax.errors import DataError
from albert_jax.local_disk import require_regular

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

MANIFEST = "manifest.json"
WORK_FOLDER = "prepare-work"
"""Folder inside a prepared one with what its preparation needs, deleted at the end."""
FORMAT = 1
"""Version of the layout of a prepared folder; a folder of another version is refused."""

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Location of a document in a prepared folder."""

    shard: str
    """The shard, a file of the prepared folder."""
    document: int
    """Number of the document in the shard, from 0; of a document longer than a window each piece
    counts."""
    source: str
    """The part of the source text that the shard was made from, if the folder tells."""

    def __str__(self) -> str:
        return f"document {self.document} of {self.shard}{self.source and f' ({self.source})'}"


class Corpus:
    """One split of a prepared folder, whose windows (shards.py) are numbered through all shards.

    It may be pickled. ``directory`` is the folder on a local disk, ``fingerprint`` that of the
    vocabulary that made the ids, ``content`` a hash of all splits, wherever the folder lies,
    ``columns`` tells what is known of each token, and ``labels_sha256`` which labels they have.
    """

    def __init__(self, directory: Path, split: str, manifest: dict[str, Any]) -> None:
        self.directory, self.split = directory, split
        self.fingerprint: str = manifest["vocabulary"]
        self.vocab_size: int = manifest["vocab_size"]
        self._unigram_sha256: str = manifest["unigram_sha256"]
        if not (type(self.vocab_size) is int and 0 < self.vocab_size <= MAX_VOCABULARY):
            raise _unreadable(directory, f"vocab_size is not 1 to {MAX_VOCABULARY:,}")
        described = manifest.get("columns")
        self.columns, self.labels_sha256 = columns.from_manifest(described, directory)
        facts = [self.fingerprint, manifest["splits"]] + [described] * bool(described)
        content = json.dumps(facts, sort_keys=True)
        self.content = hashlib.sha256(content.encode()).hexdigest()
        entries = manifest["splits"].get(split, [])
        self._sources: list[str] = manifest.get("inputs", {}).get("sources", [])
        self.shards = [
            ShardReader(directory, entry, self.vocab_size, self.columns) for entry in entries
        ]
        self.num_documents = sum(entry["documents"] for entry in entries)
        self.num_tokens = sum(entry["tokens"] for entry in entries)
        counts = [len(shard.windows) for shard in self.shards]
        self._first_windows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.num_windows = int(self._first_windows[-1])
        self.left_out: frozenset[int] = frozenset()
        """Windows with damaged records, whose documents are left out of all rows."""

    @classmethod
    def open(cls, directory: str | os.PathLike[str], split: str = "train") -> Corpus:
        """Opens a folder made by ``albert-jax data prepare``; one in a bucket is copied first.

        The sizes of all files and the checksums of the indexes are compared with the manifest, and
        each record is checked when it is read. Raises DataError if the folder is incomplete or
        damaged, or has no text in such a split.
        """
        path = str(directory)
        folder = _local_copy(path) if files.is_bucket(path) else Path(path)
        manifest = read_manifest(folder)
        try:
            corpus = cls(folder, split, manifest)
        except (KeyError, TypeError, AttributeError) as error:
            raise _unreadable(folder, f"an entry is missing or wrong ({error})") from error
        if not corpus.num_tokens:
            raise DataError(
                f"{folder} has no text in split {split!r}: prepare more text, or with another "
                "--validation-share"
            )
        return corpus

    @property
    def unigram(self) -> np.ndarray:
        """Counts of all ids in the training split, int64 [V]. Raises DataError for damage."""
        path = self.directory / "unigram.npy"
        try:
            require_regular(str(path))
            if files.sha256(str(path)) != self._unigram_sha256:
                raise ValueError("it is not what was written")
            return np.load(path, allow_pickle=False).reshape(self.vocab_size)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: prepare the text again") from error

    def vocabulary(self) -> Vocabulary:
        """The vocabulary that made the ids, from the folder's own copy of its files."""
        from albert_jax.data.vocabularies import vocabulary as vocabularies

        vocabulary = vocabularies.load(str(self.directory / "vocabulary"))
        check_vocabulary(self, vocabulary)
        return vocabulary

    def labels(self) -> tuple[str, ...]:
        """The words of the labels; empty if the documents have none."""
        path = self.directory / columns.LABELS
        return columns.read_labels(str(path)) if self.columns.num_labels else ()

    def lengths(self, windows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """For some windows: sentences in each part, and tokens in each sentence."""
        lengths = [shard.lengths(record) for shard, record in map(self._locate, windows)]
        parts, sentences = map(np.concatenate, zip(*lengths, strict=True))
        return parts.astype(np.int64), sentences.astype(np.int64)

    def tokens_in(self, windows: Sequence[int]) -> int:
        """Number of tokens of some windows together."""
        return sum(int(shard.windows[record, 2]) for shard, record in map(self._locate, windows))

    def ids(self, windows: Sequence[int]) -> np.ndarray:
        """Token ids of some windows, one after the other; see `tokens`."""
        return self.tokens(windows).ids

    def tokens(self, windows: Sequence[int]) -> Tokens:
        """Tokens of some windows, one after the other; ids of 0 for those that are left out.

        Raises DamagedRecord with the number of the window.
        """
        return columns.joined([self._tokens(window) for window in windows])

    def _tokens(self, window: int) -> Tokens:
        shard, record = self._locate(window)
        if window in self.left_out:
            count, size = int(shard.windows[record, 2]), self.columns.num_labels
            return Tokens(
                np.zeros(count, id_dtype(self.vocab_size)),
                np.ones(count, bool) if self.columns.word_starts else None,
                np.zeros(count, id_dtype(size)) if size else None,
            )
        try:
            return shard.tokens(record)
        except DamagedRecord as error:
            error.window = window
            raise

    def check_records(self) -> None:
        """Reads all records. Raises DamagedRecord for the first one that is damaged."""
        for window in range(self.num_windows):
            self._tokens(window)

    def leave_out_damage(self) -> None:
        """Reads all records, and from now on leaves those out that are damaged, with a warning."""
        found = []
        for window in range(self.num_windows):
            try:
                self._tokens(window)
            except DamagedRecord as error:
                found.append(window)
                _log.warning("%s; left out: %d documents", error, self.documents_in([window]))
        self.left_out = frozenset(found)

    def documents_in(self, windows: Iterable[int]) -> int:
        """Number of documents in some windows together; a long one may lie in several windows."""
        return sum(int(shard.windows[record, 0]) for shard, record in map(self._locate, windows))

    def place(self, window: int, token: int) -> Place:
        """The document that holds a token of a window, counted from its first one."""
        shard, record = self._locate(window)
        parts, sentences = shard.lengths(record)
        ends = np.cumsum(sentences, dtype=np.int64)[np.cumsum(parts, dtype=np.int64) - 1]
        before = int(shard.windows[:record, 0].sum())
        name = shard.entry["name"]
        # Shard I of a split is made from part I of the sources (prepare/steps.py).
        number = name.rpartition("-")[2]
        known = number.isdecimal() and int(number) < len(self._sources)
        return Place(
            str(self.directory / name),
            before + int(np.searchsorted(ends, token, side="right")),
            _source(self._sources[int(number)]) if known else "",
        )

    def _locate(self, window: int) -> tuple[ShardReader, int]:
        """The shard of a window, and its number there."""
        shard = int(np.searchsorted(self._first_windows, window, side="right")) - 1
        return self.shards[shard], int(window - self._first_windows[shard])


def _source(identity: str) -> str:
    """The path and range in the identity of a part (sources/document.py), without its size."""
    parts = re.fullmatch(r"(.*) (\d+:-?\d+) \d+", identity)
    if not parts:
        return identity
    return parts[1] if parts[2] == "0:-1" else f"{parts[1]}, part {parts[2]}"


def _local_copy(directory: str) -> Path:
    """Copies a prepared folder from a bucket, unless a copy exists, and returns the copy.

    The copy is named after the manifest, which holds the checksums of the shards, so a folder
    that was prepared anew is copied anew. Files appear complete and the manifest last, so an
    interrupted copy continues, and several processes of a machine may copy at once.
    """
    manifest = files.read(files.join(directory, MANIFEST))
    if manifest is None:
        raise DataError(
            f"{directory} holds no {MANIFEST}: run `albert-jax data prepare` to its end"
        )
    folder = Path(files.cache_folder("data", hashlib.sha256(manifest).hexdigest()[:16]))
    if (folder / MANIFEST).is_file():
        return folder
    _log.info("copying %s to %s", directory, folder)
    copied = files.file_sizes(str(folder))
    for name, size in files.file_sizes(directory).items():
        if (
            name != MANIFEST
            and not name.startswith((f"{WORK_FOLDER}/", "."))
            and copied.get(name) != size
        ):
            files.download(files.join(directory, name), files.join(str(folder), name))
    files.write(str(folder / MANIFEST), manifest)
    return folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises DataError if it is missing or unreadable."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} is not a prepared folder (it has no {MANIFEST}): run "
            "`albert-jax data prepare` to its end, or name its --out folder"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(folder, "it is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _unreadable(folder, f"its format is not {FORMAT}")
    return manifest


def check_vocabulary(corpus: Corpus, vocabulary: Vocabulary) -> None:
    """Raises DataError if the corpus was prepared with another vocabulary."""
    if corpus.fingerprint != vocabulary.fingerprint or corpus.vocab_size != vocabulary.size:
        raise DataError(
            f"{corpus.directory} was prepared with vocabulary {corpus.fingerprint[:12]} "
            f"({corpus.vocab_size} tokens), not with {vocabulary.fingerprint[:12]} "
            f"({vocabulary.size} tokens): prepare it again with this vocabulary"
        )


def check_labels(corpora: Sequence[Corpus], *, needed: bool) -> None:
    """Raises DataError unless all corpora have the same labels, and labels at all if `needed`."""
    for corpus in corpora:
        if corpus.labels_sha256 != corpora[0].labels_sha256:
            raise DataError(
                f"{corpus.directory} has other labels than {corpora[0].directory}, or one of them "
                "has none: prepare both with the same labels, or neither with any"
            )
    if needed and not corpora[0].columns.num_labels:
        raise DataError(
            f"{corpora[0].directory} has no labels, and the objective predicts words: prepare text "
            'with labels, or set objective.word_prediction to "none"'
        )


def _unreadable(folder: Path, problem: str) -> DataError:
    return DataError(f"{folder / MANIFEST} cannot be used: {problem}: prepare the text again")
