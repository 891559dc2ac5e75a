"""A prepared folder, opened for reading.

``manifest.json`` is written last, so a folder without one is incomplete. It names the shards of
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
from albert_jax.data.corpus.local_copy import MANIFEST, local_copy
from albert_jax.data.corpus.shards import ShardReader
from albert_jax.errors import DataError

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

FORMAT = 1
"""Version of the layout of a prepared folder; a folder of another version is refused."""


class Corpus:
    """One split of a prepared folder, whose windows are numbered through all shards.

    It may be pickled.

    Attributes:
      directory: The folder, on a local disk.
      split: Name of the split.
      fingerprint: Fingerprint of the vocabulary that made the ids.
      vocab_size: Number of ids of the vocabulary.
      num_documents: Number of documents.
      num_tokens: Number of tokens.
      num_windows: Number of windows (shards.py).
      shards: The readers of the shards.
    """

    def __init__(self, directory: Path, split: str, manifest: dict[str, Any]) -> None:
        self.directory, self.split = directory, split
        self.fingerprint: str = manifest["vocabulary"]
        self.vocab_size: int = manifest["vocab_size"]
        entries = manifest["splits"][split]
        self.shards = [ShardReader(directory, entry, self.vocab_size) for entry in entries]
        self.num_documents = sum(entry["documents"] for entry in entries)
        self.num_tokens = sum(entry["tokens"] for entry in entries)
        counts = [len(shard.windows) for shard in self.shards]
        self._first_windows = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.num_windows = int(self._first_windows[-1])

    @classmethod
    def open(cls, directory: str | os.PathLike[str], split: str = "train") -> Corpus:
        """Opens a folder made by ``albert-jax data prepare``; one in a bucket is copied first.

        The sizes of all files and the checksums of the indexes are compared with the manifest.
        Records are checked one by one when they are read.

        Raises:
          DataError: The folder is incomplete or damaged, or has no such split.
        """
        path = str(directory)
        folder = local_copy(path) if files.is_bucket(path) else Path(path)
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
        """Lengths in some windows, one after the other.

        Returns:
          Sentences of each part of a document, and tokens of each sentence, both int64.
        """
        lengths = [shard.lengths(record) for shard, record in map(self._locate, windows)]
        sentences_per_part, tokens_per_sentence = zip(*lengths, strict=True)
        return (
            np.concatenate(sentences_per_part).astype(np.int64),
            np.concatenate(tokens_per_sentence).astype(np.int64),
        )

    def tokens_in(self, windows: Sequence[int]) -> int:
        """Number of tokens of some windows together."""
        return sum(shard.num_tokens(record) for shard, record in map(self._locate, windows))

    def ids(self, windows: Sequence[int]) -> np.ndarray:
        """Token ids of some windows, one after the other. Raises DataError for a damaged record."""
        return np.concatenate([shard.ids(record) for shard, record in map(self._locate, windows)])

    def verify(self) -> None:
        """Compares every file of the split with its checksum; raises DataError if one differs."""
        for shard in self.shards:
            shard.verify()

    def _locate(self, window: int) -> tuple[ShardReader, int]:
        """The shard of a window, and its number there."""
        shard = int(np.searchsorted(self._first_windows, window, side="right")) - 1
        return self.shards[shard], int(window - self._first_windows[shard])


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
    for key, kind in (("vocabulary", str), ("vocab_size", int), ("splits", dict)):
        if not isinstance(manifest.get(key), kind):
            raise _unreadable(folder, f"its entry {key!r} is missing or of another kind")
    return manifest


def check_vocabulary(corpus: Corpus, vocabulary: Vocabulary) -> None:
    """Raises DataError if the corpus was prepared with another vocabulary."""
    if corpus.fingerprint != vocabulary.fingerprint or corpus.vocab_size != vocabulary.size:
        raise DataError(
            f"{corpus.directory} was prepared with vocabulary {corpus.fingerprint[:12]} "
            f"({corpus.vocab_size} tokens), not with {vocabulary.fingerprint[:12]} "
            f"({vocabulary.size} tokens): prepare it again with this vocabulary"
        )


def _unreadable(folder: Path, problem: str) -> DataError:
    return DataError(f"{folder / MANIFEST} cannot be used: {problem}: prepare the text again")
