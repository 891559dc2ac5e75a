"""A prepared folder opened for reading: its manifest, its shards, its windows.

``manifest.json`` is written last, so a folder without one is unfinished. It names the shards of
each split with their counts and checksums, and the vocabulary that made the ids.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.local_copy import local_copy
from albert_jax.data.corpus.shards import ShardReader, Window
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

OPEN_FILES = 1 << 16
"""Files that a process may have open at a time, if the system allows as many."""
FORMAT = 1
"""Number of the layout of a prepared folder; a folder of another number is refused."""


class Corpus:
    """One split of a prepared folder. Windows are numbered over its shards in their order.

    Attributes: ``directory``, ``split``, ``fingerprint`` (of the vocabulary), ``vocab_size``,
    ``num_documents``, ``num_tokens``, ``num_windows``. May be pickled.
    """

    def __init__(self, directory: Path, split: str, manifest: dict[str, Any]) -> None:
        self.directory, self.split = directory, split
        self.fingerprint: str = manifest["vocabulary"]
        self.vocab_size: int = manifest["vocab_size"]
        entries = manifest["splits"][split]
        self.shards = [ShardReader(directory, entry, self.vocab_size) for entry in entries]
        self.num_documents = sum(entry["documents"] for entry in entries)
        self.num_tokens = sum(entry["tokens"] for entry in entries)
        sizes = [len(shard.windows) for shard in self.shards]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.num_windows = int(self._first[-1])

    @classmethod
    def open(cls, directory: str | os.PathLike[str], split: str = "train") -> Corpus:
        """Opens a folder made by ``albert-jax data prepare``; from a bucket it is copied first.

        Sizes of all files and the checksums of the indexes are compared with the manifest; the
        ids are checked record by record when they are read. Raises DataError otherwise.
        """
        _open_many_files()
        place = str(directory)
        folder = local_copy(place) if files.is_bucket(place) else Path(place)
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise DataError(
                f"{folder} has no split {split!r}, only {sorted(manifest['splits'])}: name one"
            )
        try:
            corpus = cls(folder, split, manifest)
        except (KeyError, TypeError) as error:
            raise _unreadable(folder, f"an entry of split {split!r} lacks {error}") from error
        if not corpus.num_tokens:
            raise DataError(
                f"{folder} has no text in split {split!r}: prepare more text, or with another "
                "--validation-share"
            )
        return corpus

    @property
    def unigram(self) -> np.ndarray:
        """How often each id occurs in the training split, int64 [V]."""
        path = self.directory / "unigram.npy"
        try:
            counts = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: prepare the text again") from error
        if counts.shape != (self.vocab_size,):
            raise DataError(
                f"{path} counts {counts.shape} ids instead of {self.vocab_size}: prepare the "
                "text again"
            )
        return counts

    def vocabulary(self) -> Vocabulary:
        """The vocabulary that made the ids, from the folder's own copy of its files."""
        from albert_jax.data.vocabularies import vocabulary as vocabularies

        vocabulary = vocabularies.load(str(self.directory / "vocabulary"))
        check_vocabulary(self, vocabulary)
        return vocabulary

    def lengths(self, windows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Lengths in some windows, one after the other: sentences of each piece, tokens of each
        sentence (int64)."""
        parts = [shard.lengths(record) for shard, record in map(self._locate, windows)]
        pieces = np.concatenate([part[0] for part in parts]).astype(np.int64)
        return pieces, np.concatenate([part[1] for part in parts]).astype(np.int64)

    def tokens_in(self, windows: Sequence[int]) -> int:
        """Tokens of some windows together."""
        found = map(self._locate, windows)
        return sum(int(shard.windows[record, 2]) for shard, record in found)

    def ids(self, windows: Sequence[int]) -> np.ndarray:
        """Token ids of some windows, one after the other. Raises DataError for a bad record."""
        return np.concatenate([shard.ids(record) for shard, record in map(self._locate, windows)])

    def window(self, window: int) -> Window:
        """One window with its lengths."""
        shard, record = self._locate(window)
        return shard.window(record)

    def verify(self) -> None:
        """Compares every file of the split with its checksum; DataError names the first bad."""
        for shard in self.shards:
            shard.verify()

    def _locate(self, window: int) -> tuple[ShardReader, int]:
        shard = int(np.searchsorted(self._first, window, side="right")) - 1
        return self.shards[shard], int(window - self._first[shard])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder. Raises DataError if there is none that we can read."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(
            f"{folder} is not a prepared folder (it has no manifest.json): run "
            "`albert-jax data prepare` to its end, or name its --out folder"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(folder, "it is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _unreadable(folder, f"its format is not {FORMAT}")
    for key, kind in (("vocabulary", str), ("vocab_size", int), ("splits", dict)):
        if not isinstance(manifest.get(key), kind):
            raise _unreadable(folder, f"its entry {key!r} is missing or of another kind")
    return manifest


def check_vocabulary(corpus: Corpus, vocabulary: Vocabulary) -> None:
    """Raises DataError if the corpus was prepared with another vocabulary."""
    if corpus.fingerprint != vocabulary.fingerprint or corpus.vocab_size != vocabulary.size:
        raise DataError(
            f"{corpus.directory} was prepared with vocabulary {corpus.fingerprint[:12]} "
            f"({corpus.vocab_size} pieces), not with {vocabulary.fingerprint[:12]} "
            f"({vocabulary.size} pieces): prepare it again with this vocabulary"
        )


def _unreadable(folder: Path, what: str) -> DataError:
    return DataError(f"{folder / 'manifest.json'} cannot be used: {what}: prepare the text again")


def _open_many_files() -> None:
    """Lets this process open as many files as the system allows: a shard needs four, and a shell's
    usual 1,024 would end at 11 GB of text."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
