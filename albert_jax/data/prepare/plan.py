"""The options of a preparation, and the files that its steps exchange."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from albert_jax import files
from albert_jax.config import MAX_VOCABULARY
from albert_jax.data.corpus.corpus import WORK_FOLDER
from albert_jax.data.prepare.word_segmentation import Words
from albert_jax.data.sources.document import Part
from albert_jax.data.sources.sentences import Rule
from albert_jax.data.sources.sources import PART_BYTES, ReadOptions
from albert_jax.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options for choosing and dividing documents, and for sharing the work."""

    reading: ReadOptions = field(default_factory=ReadOptions)
    sentences: Rule = "split"
    """Rule for finding sentences; see sentences.py."""
    language: str = "en"
    """Language whose abbreviations the sentence splitter knows."""
    validation_share: float | None = None
    """Share of the groups that is held out, chosen by hash, and at least one group. None means 5%,
    and less of a corpus above 100 MB, so that about 5 MB of text are held out."""
    min_characters: int = 20
    """Shorter documents are left out and counted."""
    words: Words = "none"
    """The way to find words that the tokens do not show; see word_segmentation.py."""
    labels: str | None = None
    """File with the words of the labels that come with token ids, one a line."""
    phonemes: str = ""
    """Language in which text is spoken, or "file" for text with its phonemes; see phonemes.py."""
    word_limit: int = 80_000
    """Most words whose labels the symbols get, the commonest ones."""
    decontaminate: tuple[str, ...] = ()
    """Evaluation files; documents that share a run of words with them are left out."""
    part_bytes: int = PART_BYTES
    """Size of a part of a large file. The prepared bytes depend on it."""
    workers: int | None = None
    """Processes on this machine. None means one for each core, but no more than there are parts."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): this command does items i, i + n, ... of a folder that n commands share."""
    beam: tuple[str, ...] = ()
    """Name of a Beam runner that does the items, and its options; if empty, this machine does."""

    def __post_init__(self) -> None:
        index, count = self.shard
        if self.beam and (self.workers or self.shard != (0, 1)):
            raise ConfigError("Beam divides the work itself: leave out workers and shard")
        if not 0 <= index < count:
            raise ConfigError(f"shard {index}/{count}: give I/N with I from 0 to N - 1")
        if self.validation_share is not None and not 0 <= self.validation_share <= 0.5:
            raise ConfigError(
                f"validation share {self.validation_share}: it must lie between 0 and 0.5"
            )
        if not 1 <= self.word_limit <= MAX_VOCABULARY - 2:
            raise ConfigError(f"word limit {self.word_limit}: give 1 to {MAX_VOCABULARY - 2:,}")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers {self.workers}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides what a preparation writes."""

    out_dir: str
    parts: tuple[Part, ...]
    options: PrepareOptions
    validation_share: float
    vocabulary: str
    """Fingerprint of the vocabulary."""
    columns: tuple[str, ...] = ()
    """Names of the columns that all documents have: word_starts, labels."""

    @property
    def work(self) -> str:
        """Folder of the files that are needed until the manifest is written."""
        return files.join(self.out_dir, WORK_FOLDER)

    def array(self, step: str, index: int) -> str:
        """Path of the array of an item."""
        return files.join(self.work, f"{step}-{index:05d}.bin")

    def write_record(self, step: str, index: int, record: dict[str, Any]) -> None:
        """Writes the record of an item, which marks it as complete."""
        files.write(self._record(step, index), json.dumps(record).encode())

    def read_record(self, step: str, index: int) -> dict[str, Any]:
        """Reads the record of an item. Raises DataError if it is gone."""
        path = self._record(step, index)
        content = files.read(path)
        if content is None:
            raise DataError(f"{path}: was deleted while it was needed: run the same command again")
        return json.loads(content)

    def _record(self, step: str, index: int) -> str:
        return files.join(self.work, f"{step}-{index:05d}.json")
