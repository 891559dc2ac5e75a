"""The three steps of preparation, each on work items that any process can do alone.

1. `hash_part` reads a part and writes a table of its documents' hashes.
2. `find_copies` compares the documents of one range of hashes over all parts.
3. `encode_part` reads the part again and writes its shards.

An item's record is written last and marks it as complete; complete items are not done again. The
bytes depend on the plan alone, not on workers, order or interruptions.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.shard_writer import ShardWriter
from albert_jax.data.prepare import deduplication
from albert_jax.data.prepare.decontamination import Overlap
from albert_jax.data.prepare.plan import Plan
from albert_jax.data.sources import sources
from albert_jax.data.sources.document import Document, ReadCounts
from albert_jax.data.sources.sentences import sentences
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError

BATCH_BYTES = 1 << 18
"""Text that is tokenized in one call."""


def hash_part(plan: Plan, index: int) -> None:
    """Step 1 for one part."""
    options, counts = plan.options, ReadCounts()
    overlap = Overlap(options.decontaminate) if options.decontaminate else None
    rows = array("Q")  # 32 bytes a document, because a large compressed file has millions
    short = overlapping = 0
    for number, document in enumerate(sources.read(plan.parts[index], options.reading, counts)):
        high, low = deduplication.hash_text(document.content())
        group = deduplication.hash_group(document.group) if document.group else high
        if document.ids is None:
            is_short = len(document.text) < options.min_characters
        else:
            is_short = len(document.ids) < 2
        if is_short:
            high = low = 0
            short += 1
        elif overlap and overlap.shares_run(document.text):
            high = low = 0
            overlapping += 1
        rows.extend((high, low, number, group))
    table = np.frombuffer(rows, np.uint64).view(deduplication.ROW)
    table.sort(order=["high", "low", "number"])
    groups = np.unique(table["group"][(table["high"] != 0) | (table["low"] != 0)]).tolist()
    deduplication.write_rows(plan.array("hashes", index), table)
    if overlap:
        deduplication.write_array(plan.array("overlap", index), overlap.found)
    record = {
        "documents": len(table),
        "short": short,
        "overlapping": overlapping,
        "outer_groups": [*groups[:1], *groups[-1:]],
        "prefix_ends": deduplication.prefix_ends(table),
        **dataclasses.asdict(counts),
    }
    plan.write_record("hashes", index, record)


def find_copies(plan: Plan, index: int, stretches: Sequence[tuple[int, int]]) -> None:
    """Step 2 for one range of hashes, which lies in these rows of each part's table."""
    tables = [plan.array("hashes", i) for i in range(len(plan.parts))]
    copies = deduplication.find_copies(tables, stretches)
    deduplication.write_rows(plan.array("copies", index), np.concatenate(copies))
    plan.write_record("copies", index, {"ends": np.cumsum(list(map(len, copies))).tolist()})


def encode_part(plan: Plan, index: int, copies: Sequence[tuple[int, int]], threshold: int) -> None:
    """Step 3 for one part.

    Args:
      plan: The plan.
      index: Which part.
      copies: For each range of hashes, where its file of copies holds those of this part.
      threshold: Documents whose group has a smaller hash are held out.
    """
    vocab = _vocabulary(files.join(plan.out_dir, "vocabulary"))
    unigram = np.zeros(vocab.size, np.int64)
    writers: dict[str, ShardWriter] = {}
    totals = {"documents_with_pairs": 0, "unknown": 0, "text_bytes": 0}
    with ExitStack() as stack:
        folder = plan.out_dir
        if files.is_bucket(folder):  # Shards are written to local files and then uploaded.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        for batch in _encoded_batches(plan, index, _left_out(plan, copies), vocab):
            held_out = batch.groups < threshold
            for split, chosen in (("train", ~held_out), ("validation", held_out)):
                if not chosen.any():
                    continue
                if split not in writers:
                    writer = ShardWriter(folder, f"{split}-{index:05d}", vocab.size)
                    writers[split] = stack.enter_context(writer)
                ids, lengths, counts = batch.select(chosen)
                writers[split].add_many(ids, lengths, counts)
                if split == "train":
                    unigram += np.bincount(ids, minlength=vocab.size)
            totals["documents_with_pairs"] += batch.num_with_pairs
            totals["unknown"] += batch.unknown
            totals["text_bytes"] += batch.text_bytes
        entries = {split: writers[split].close() for split in sorted(writers)}
        if folder != plan.out_dir:
            for name in files.names(folder):
                files.upload(files.join(folder, name), files.join(plan.out_dir, name))
    deduplication.write_array(plan.array("unigram", index), unigram)
    plan.write_record("encode", index, {"shards": entries, **totals})


@dataclass(frozen=True)
class _Batch:
    """Some documents that stay, with their tokens."""

    groups: np.ndarray
    """Hash of each document's group, uint64 [documents]."""
    counts: np.ndarray
    """Sentences of each document."""
    lengths: np.ndarray
    """Tokens of each sentence."""
    ids: np.ndarray
    """All token ids."""
    unknown: int
    """Unknown tokens among those of texts."""
    text_bytes: int

    @property
    def num_with_pairs(self) -> int:
        """How many documents have two sentences with tokens."""
        document = np.repeat(np.arange(len(self.counts)), self.counts)
        return int(np.count_nonzero(np.bincount(document[self.lengths > 0]) > 1))

    def select(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ids, lengths, counts) of the chosen documents, bool [documents]."""
        in_sentences = np.repeat(chosen, self.counts)
        in_tokens = np.repeat(in_sentences, self.lengths)
        return self.ids[in_tokens], self.lengths[in_sentences], self.counts[chosen]


def _left_out(plan: Plan, copies: Sequence[tuple[int, int]]) -> frozenset[int]:
    """Numbers of the documents of a part that are copies of others."""
    numbers: set[int] = set()
    for i, (begin, end) in enumerate(copies):
        rows = deduplication.read_rows(plan.array("copies", i), deduplication.NUMBER, begin, end)
        numbers.update(rows.tolist())
    return frozenset(numbers)


def _encoded_batches(
    plan: Plan, index: int, left_out: frozenset[int], vocab: Vocabulary
) -> Iterator[_Batch]:
    """Yields the documents of a part that stay, in order."""
    changed = DataError(
        f"{plan.parts[index].path}: changed between the two times it was read: delete "
        f"{plan.out_dir} and start again when nothing writes to the file"
    )
    count = plan.read_record("hashes", index)["documents"]
    table = deduplication.read_rows(plan.array("hashes", index), deduplication.ROW, 0, count)
    table = table[np.argsort(table["number"])]
    batch: list[Document] = []
    kept: list[int] = []
    size, number = 0, -1
    documents = sources.read(plan.parts[index], plan.options.reading, ReadCounts())
    for number, document in enumerate(documents):
        if number >= len(table):
            raise changed
        expected = int(table["high"][number]), int(table["low"][number])
        if expected == (0, 0):
            continue
        content = document.content()
        if deduplication.hash_text(content) != expected:
            raise changed
        if number in left_out:
            continue
        batch.append(document)
        kept.append(number)
        size += len(content)
        if size >= BATCH_BYTES:
            yield _encode(plan, batch, table["group"][kept], vocab, size)
            batch, kept, size = [], [], 0
    if number + 1 != len(table):
        raise changed
    if batch:
        yield _encode(plan, batch, table["group"][kept], vocab, size)


def _encode(
    plan: Plan, documents: list[Document], groups: np.ndarray, vocab: Vocabulary, size: int
) -> _Batch:
    """Makes a batch of documents that all have text, of `size` bytes, or all have ids."""
    if documents[0].ids is None:
        rule, language = plan.options.rule, plan.options.language
        texts = [sentences(document.text, rule, language) for document in documents]
        ids, lengths = vocab.encode_flat(list(itertools.chain.from_iterable(texts)))
        unknown = int(np.count_nonzero(ids == vocab.unk_id))
        return _Batch(groups, np.array(list(map(len, texts))), lengths, ids, unknown, size)
    stripped = [_without_padding(document, vocab) for document in documents]
    counts = np.array([len(lengths) for _, lengths in stripped])
    ids = np.concatenate([ids for ids, _ in stripped])
    lengths = np.concatenate([lengths for _, lengths in stripped])
    return _Batch(groups, counts, lengths, ids, 0, 0)


def _without_padding(document: Document, vocab: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The ids and sentence lengths of a document without the padding at its end.

    Raises DataError for special ids inside it, which only the model adds and masks.
    """
    ids, lengths = document.ids, document.lengths
    assert ids is not None and lengths is not None
    count = int(np.flatnonzero(ids != vocab.pad_id)[-1:].sum()) + 1
    special = (vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id)
    inside = np.flatnonzero(np.isin(ids[:count], special))
    if len(inside):
        raise DataError(
            f"{document.id}: holds the special id {int(ids[inside[0]])} at position "
            f"{int(inside[0])}: leave special ids out; padding may stand at the end only"
        )
    if count < len(ids):
        lengths = np.diff(np.minimum(np.cumsum(lengths), count), prepend=0)
        lengths = lengths[lengths > 0]
    return ids[:count], lengths


@lru_cache(maxsize=2)
def _vocabulary(path: str) -> Vocabulary:
    return vocabulary.load(path)
