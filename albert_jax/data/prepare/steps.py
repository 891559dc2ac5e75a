"""The three steps of preparation, each on work items that any process can do alone.

1. `hash_part`: reads a part and writes a table of its documents' hashes.
2. `reduce_range`: finds the copies among all documents of one range of hashes.
3. `encode_part`: reads the part again and writes its shards.

An item's record (``*.json``) is written last and says that the item is whole; whole items are
never done again. The bytes depend on the plan alone: not on workers, order or interruptions.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.shards import ShardWriter
from albert_jax.data.prepare import deduplication as dedup
from albert_jax.data.prepare import overlap
from albert_jax.data.sources import sources
from albert_jax.data.sources import token_ids as id_rows
from albert_jax.data.sources.document import Document
from albert_jax.data.sources.sentences import Rule, sentences
from albert_jax.data.sources.sources import Part, ReadOptions
from albert_jax.data.sources.text_files import Tally
from albert_jax.data.vocabularies import vocabulary
from albert_jax.errors import DataError

BATCH_BYTES = 1 << 18
"""Text that is segmented in one call."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides what a preparation writes."""

    out_dir: str
    parts: tuple[Part, ...]
    options: ReadOptions
    rule: Rule
    language: str
    validation_share: float
    min_characters: int
    evaluation_files: tuple[str, ...] = ()

    @property
    def work(self) -> str:
        """Folder of what is needed until the manifest is written."""
        return files.join(self.out_dir, "work")

    def record(self, stage: str, index: int) -> str:
        """Path of an item's record."""
        return files.join(self.work, f"{stage}-{index:05d}.json")

    def array(self, stage: str, index: int) -> str:
        """Path of an item's array."""
        return files.join(self.work, f"{stage}-{index:05d}.npy")


def read_record(path: str) -> dict[str, Any]:
    """An item's record. Raises DataError if another process has removed or damaged it."""
    content = files.read(path)
    if content is None:
        raise DataError(f"{path}: vanished while it was needed: run the same command again")
    return json.loads(content)


def hash_part(plan: Plan, index: int) -> None:
    """Step 1 for one part."""
    part, tally = plan.parts[index], Tally()
    rows = array("Q")  # 32 bytes a document, of which a large compressed file has millions
    for number, document in enumerate(sources.read(part, plan.options, tally)):
        high, low = dedup.hash_text(document.content())
        group = dedup.hash_group(document.group) if document.group else high
        size, least = len(document.text), plan.min_characters
        if document.ids is not None:
            size, least = len(document.ids), 2
        if size < least:
            high = low = 0
        rows.extend((high, low, number, group))
    table = np.frombuffer(rows, np.uint64).view(dedup.ROW)
    table.sort(order=["high", "low", "number"])
    long = (table["high"] != 0) | (table["low"] != 0)
    short = int(np.count_nonzero(~long))
    dedup.write_array(plan.array("hash", index), table)
    groups = np.unique(table["group"][long]).tolist()
    _write_record(
        plan.record("hash", index),
        {
            "documents": len(table),
            "short": short,
            "outer_groups": [*groups[:1], *groups[-1:]],
            **dataclasses.asdict(tally),
        },
    )


def reduce_range(plan: Plan, index: int, count: int) -> None:
    """Step 2 for one range of hashes, out of `count`."""
    tables = [plan.array("hash", i) for i in range(len(plan.parts))]
    dropped = dedup.reduce_range(tables, index, count)
    dedup.write_array(plan.array("drop", index), dropped)
    _write_record(plan.record("drop", index), {"copies": len(dropped)})


def encode_part(plan: Plan, index: int, ranges: int, threshold: int) -> None:
    """Step 3 for one part: documents whose group hash is below `threshold` are held out."""
    table = np.asarray(dedup.read_array(plan.array("hash", index)))
    place = np.argsort(table["number"])
    dropped = _dropped(plan, index, ranges)
    vocab = _vocabulary(files.join(plan.out_dir, "vocabulary"))
    evaluation = overlap.Overlap(plan.evaluation_files) if plan.evaluation_files else None
    unigram = np.zeros(vocab.size, np.int64)
    writers: dict[str, ShardWriter] = {}
    found = {"documents_with_pairs": 0, "unknown": 0, "text_bytes": 0}
    with ExitStack() as leaving:
        folder = plan.out_dir
        if files.is_bucket(folder):  # shards are written to files, and go there whole
            folder = leaving.enter_context(tempfile.TemporaryDirectory())
        for batch in _encoded(plan, index, table, place, dropped, vocab):
            held = batch.groups < threshold
            for split, chosen in (("train", ~held), ("validation", held)):
                if not chosen.any():
                    continue
                if split not in writers:
                    writer = ShardWriter(folder, f"{split}-{index:05d}", vocab.size)
                    writers[split] = leaving.enter_context(writer)
                ids, lengths, counts = batch.of(chosen)
                writers[split].add_many(ids, lengths, counts)
                if split == "train":
                    unigram += np.bincount(ids, minlength=vocab.size)
            found["documents_with_pairs"] += batch.pairs
            found["unknown"] += batch.unknown
            found["text_bytes"] += batch.text_bytes
            if evaluation is not None:
                for document in itertools.compress(batch.documents, ~held):
                    evaluation.look(document.text)
        entries = {split: writers[split].close() for split in sorted(writers)}
        if folder != plan.out_dir:
            for name in files.names(folder):
                files.upload(files.join(folder, name), files.join(plan.out_dir, name))
    dedup.write_array(plan.array("unigram", index), unigram)
    if evaluation:
        dedup.write_array(plan.array("overlap", index), evaluation.found)
        found["documents_with_overlap"] = evaluation.documents
    _write_record(plan.record("encode", index), {"shards": entries, **found})


@dataclass(frozen=True)
class _Batch:
    """Some documents that stay."""

    documents: list[Document]
    groups: np.ndarray
    """Hash of each document's group, uint64 [documents]."""
    counts: np.ndarray
    """Sentences of each document."""
    lengths: np.ndarray
    """Tokens of each sentence."""
    ids: np.ndarray
    """All token ids."""
    unknown: int
    """Unknown pieces among those of texts."""
    text_bytes: int

    @property
    def pairs(self) -> int:
        """How many documents have two sentences with tokens."""
        number = np.repeat(np.arange(len(self.counts)), self.counts)
        return int(np.count_nonzero(np.bincount(number[self.lengths > 0]) > 1))

    def of(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids, lengths, counts) of the chosen documents, bool [documents]."""
        sentences = np.repeat(chosen, self.counts)
        tokens = np.repeat(sentences, self.lengths)
        return self.ids[tokens], self.lengths[sentences], self.counts[chosen]


def _encoded(
    plan: Plan,
    index: int,
    table: np.ndarray,
    place: np.ndarray,
    dropped: frozenset[int],
    vocab: vocabulary.Vocabulary,
) -> Iterator[_Batch]:
    """The documents that stay, in order.

    `place` [documents] says where in the table a document's row stands.
    """
    changed = DataError(
        f"{plan.parts[index].path}: changed between the two times it was read: delete "
        f"{plan.out_dir} and start again when the file is at rest"
    )
    high, low, groups = (table[name][place] for name in ("high", "low", "group"))
    batch: list[Document] = []
    kept: list[int] = []
    size, number = 0, -1
    for number, document in enumerate(sources.read(plan.parts[index], plan.options, Tally())):
        if number >= len(table):
            raise changed
        wanted = int(high[number]), int(low[number])
        if wanted == (0, 0):
            continue
        content = document.content()
        if dedup.hash_text(content) != wanted:
            raise changed
        if number in dropped:
            continue
        batch.append(document)
        kept.append(number)
        size += len(content)
        if size >= BATCH_BYTES:
            yield _encode(plan, batch, groups[kept], vocab, size)
            batch, kept, size = [], [], 0
    if number + 1 != len(table):
        raise changed
    if batch:
        yield _encode(plan, batch, groups[kept], vocab, size)


def _encode(
    plan: Plan,
    documents: list[Document],
    groups: np.ndarray,
    vocab: vocabulary.Vocabulary,
    size: int,
) -> _Batch:
    """Ids of documents that have text, or of documents that have ids; `size` is their bytes."""
    if documents[0].ids is None:
        texts = [sentences(document.text, plan.rule, plan.language) for document in documents]
        ids, lengths = vocab.encode_flat(list(itertools.chain.from_iterable(texts)))
        counts = np.array([len(one) for one in texts])
        unknown = int(np.count_nonzero(ids == vocab.unk_id))
        return _Batch(documents, groups, counts, lengths, ids, unknown, size)
    documents = [id_rows.without_padding(document, vocab) for document in documents]
    ids = np.concatenate([document.ids for document in documents if document.ids is not None])
    units = [document.lengths for document in documents if document.lengths is not None]
    counts = np.array([len(one) for one in units])
    return _Batch(documents, groups, counts, np.concatenate(units), ids, 0, 0)


def _dropped(plan: Plan, index: int, ranges: int) -> frozenset[int]:
    found: set[int] = set()
    for i in range(ranges):
        copies = dedup.read_array(plan.array("drop", i))
        begin, end = np.searchsorted(copies[:, 0], [index, index + 1])
        found.update(copies[begin:end, 1].tolist())
    return frozenset(found)


@lru_cache(maxsize=2)
def _vocabulary(path: str) -> vocabulary.Vocabulary:
    return vocabulary.load(path)


def _write_record(path: str, record: dict[str, Any]) -> None:
    files.write(path, (json.dumps(record, sort_keys=True) + "\n").encode())
