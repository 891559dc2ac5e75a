"""The steps of preparation, each divided into items that any process can do alone.

1. `hash_part` reads a part of the corpus and writes a table of its documents' hashes.
2. `find_duplicates` compares the documents of one hash partition over all parts.
3. For text with phonemes, `count_part` counts the words of the documents that stay, and
   `write_labels` gathers the commonest.
4. `encode_part` reads the part again, and tokenizes and writes the documents that stay.

The record of an item is written last and marks it as complete. The prepared bytes depend on the
plan alone, not on workers, order or interruptions.
"""

from __future__ import annotations

import dataclasses
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.columns import LABELS
from albert_jax.data.corpus.shard_writer import ShardWriter
from albert_jax.data.prepare import deduplication, front_ends
from albert_jax.data.prepare.decontamination import Overlap
from albert_jax.data.prepare.phonemes import UNKNOWN
from albert_jax.data.prepare.plan import Plan
from albert_jax.data.prepare.spoken_words import label_of
from albert_jax.data.sources import sources
from albert_jax.data.sources.document import Document, ReadCounts
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.symbols import SEPARATOR
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError

BATCH_SIZE = 1 << 18
"""Characters of text that are tokenized in one call."""

RowRanges = Sequence[tuple[int, int]]
"""For each of several files, the first row that is read and one after the last."""


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
        elif overlap and overlap.shares_ngram(document.text):
            high = low = 0
            overlapping += 1
        rows.extend((high, low, number, group))
    table = np.frombuffer(rows, np.uint64).view(deduplication.ROW)
    table.sort(order=["high", "low", "number"])
    groups = np.unique(table["group"][(table["high"] | table["low"]) != 0]).tolist()
    deduplication.write_array(plan.array("hashes", index), table)
    if overlap:
        deduplication.write_array(plan.array("overlap", index), overlap.found)
    record = {
        "documents": len(table),
        "short": short,
        "overlapping": overlapping,
        "ngrams": len(overlap.found) if overlap else 0,
        "outer_groups": [*groups[:1], *groups[-1:]],
        "prefix_ends": deduplication.prefix_ends(table),
        **dataclasses.asdict(counts),
    }
    plan.write_record("hashes", index, record)


def find_duplicates(plan: Plan, index: int, row_ranges: RowRanges) -> None:
    """Step 2 for one hash partition, which has these rows of each part's table."""
    tables = [plan.array("hashes", i) for i in range(len(plan.parts))]
    duplicates = deduplication.find_duplicates(tables, row_ranges)
    deduplication.write_array(plan.array("duplicates", index), np.concatenate(duplicates))
    ends = np.cumsum(list(map(len, duplicates))).tolist()
    plan.write_record("duplicates", index, {"ends": ends})


def count_part(plan: Plan, index: int, row_ranges: RowRanges, threshold: int) -> None:
    """Step 3 for one part; the arguments are those of `encode_part`."""
    reader = front_ends.reader(plan, _vocabulary(plan.out_dir, plan.vocabulary))
    counts: Counter[str] = Counter()
    for split, documents in _batches(plan, index, row_ranges, threshold):
        if split == "train":
            for document in documents:
                for units in reader.sentences(document):
                    counts.update(label_of(unit.word) for unit in units)
    plan.write_record("words", index, {"counts": counts})


def write_labels(plan: Plan) -> None:
    """Writes the commonest words of all parts, behind the label of all others and of the space."""
    counts: Counter[str] = Counter()
    for index in range(len(plan.parts)):
        counts.update(plan.read_record("words", index)["counts"])
    reserved = [UNKNOWN, SEPARATOR]
    words = sorted(counts.keys() - reserved, key=lambda word: (-counts[word], word))
    lines = [*reserved, *words[: plan.options.word_limit]]
    files.write(files.join(plan.out_dir, LABELS), ("\n".join(lines) + "\n").encode())


def encode_part(plan: Plan, index: int, row_ranges: RowRanges, threshold: int) -> None:
    """The last step for one part.

    Args:
      plan: The plan.
      index: Which part.
      row_ranges: Where the list of duplicates of each hash partition has those of this part.
      threshold: Documents whose group has a smaller hash are held out.
    """
    vocab = _vocabulary(plan.out_dir, plan.vocabulary)
    front_end = front_ends.front_end(plan, plan.parts[index].kind, vocab)
    columns = front_ends.columns(plan)
    unigram = np.zeros(vocab.size, np.int64)
    writers: dict[str, ShardWriter] = {}
    totals = Counter(documents_with_pairs=0, unknown=0, text_bytes=0)
    with ExitStack() as stack:
        folder = plan.out_dir
        if files.is_bucket(folder):  # Shards are written to local files and then uploaded.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        for split, documents in _batches(plan, index, row_ranges, threshold):
            encoded = front_end.encode(documents)
            ids, lengths, counts = encoded[:3]
            if split not in writers:
                writer = ShardWriter(folder, f"{split}-{index:05d}", vocab.size, columns)
                writers[split] = stack.enter_context(writer)
            writers[split].add_many(*encoded)
            if split == "train":
                unigram += np.bincount(ids, minlength=vocab.size)
            document_of_sentence = np.repeat(np.arange(len(counts)), counts)[lengths > 0]
            with_pairs = np.count_nonzero(np.bincount(document_of_sentence) > 1)
            totals["documents_with_pairs"] += int(with_pairs)
            if documents[0].ids is None:
                totals["unknown"] += int(np.count_nonzero(ids == vocab.unk_id))
                totals["text_bytes"] += sum(len(document.content()) for document in documents)
        entries = {split: writers[split].close() for split in sorted(writers)}
        if folder != plan.out_dir:
            for name in files.names(folder):
                files.upload(files.join(folder, name), files.join(plan.out_dir, name))
    deduplication.write_array(plan.array("unigram", index), unigram)
    record: dict[str, Any] = {"shards": entries, "lacking": dict(front_end.lacking), **totals}
    plan.write_record("encode", index, record)


def _batches(
    plan: Plan, index: int, row_ranges: RowRanges, threshold: int
) -> Iterator[tuple[str, list[Document]]]:
    """Yields (split, documents of this split) of a part, in order within each split."""
    batches: dict[str, list[Document]] = {"train": [], "validation": []}
    sizes = dict.fromkeys(batches, 0)
    for document, group in _kept_documents(plan, index, row_ranges):
        split = "validation" if group < threshold else "train"
        batches[split].append(document)
        sizes[split] += len(document.text if document.ids is None else document.ids)
        if sizes[split] >= BATCH_SIZE:
            yield split, batches[split]
            batches[split], sizes[split] = [], 0
    for split, batch in batches.items():
        if batch:
            yield split, batch


def _kept_documents(
    plan: Plan, index: int, row_ranges: RowRanges
) -> Iterator[tuple[Document, int]]:
    """Yields (document, hash of its group) of the documents that step 1 and 2 did not drop."""
    changed = DataError(
        f"{plan.parts[index].path}: changed between the two times it was read: delete "
        f"{plan.out_dir} and start again when nothing writes to the file"
    )
    count = plan.read_record("hashes", index)["documents"]
    table = deduplication.read_array(plan.array("hashes", index), deduplication.ROW, 0, count)
    table = table[np.argsort(table["number"])]
    keep = (table["high"] | table["low"]) != 0
    for i, (begin, end) in enumerate(row_ranges):
        path = plan.array("duplicates", i)
        keep[deduplication.read_array(path, deduplication.NUMBER, begin, end)] = False
    number = -1
    documents = sources.read(plan.parts[index], plan.options.reading, ReadCounts())
    for number, document in enumerate(documents):
        if number >= len(table):
            raise changed
        if keep[number]:
            high, low, _, group = table[number].tolist()
            if deduplication.hash_text(document.content()) != (high, low):
                raise changed
            yield document, group
    if number + 1 != len(table):
        raise changed


@lru_cache(maxsize=2)
def _vocabulary(out_dir: str, fingerprint: str) -> Vocabulary:
    """The vocabulary of a prepared folder, read once for each fingerprint."""
    return vocabulary.load(files.join(out_dir, "vocabulary"))
