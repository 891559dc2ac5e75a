"""The manifest of a prepared folder: what it was made from, and what it holds."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections import Counter
from typing import Any

import numpy as np

from albert_jax import files
from albert_jax.data.corpus import columns
from albert_jax.data.corpus.corpus import FORMAT, MANIFEST
from albert_jax.data.prepare import deduplication, front_ends, phonemes, word_segmentation
from albert_jax.data.prepare.plan import Plan
from albert_jax.data.sources import sentences
from albert_jax.data.vocabularies.fingerprint import canonical_json, checked_record
from albert_jax.data.vocabularies.vocabulary import Vocabulary


def inputs(plan: Plan, vocab: Vocabulary) -> dict[str, Any]:
    """Everything that decides the bytes of a folder, in a form that can be compared."""
    options = plan.options
    found = {
        "sources": [part.identity() for part in plan.parts],
        "vocabulary": vocab.fingerprint,
        "reading": dataclasses.asdict(options.reading),
        "sentences": sentences.description(options.sentences, options.language),
        "validation_share": plan.validation_share,
        "min_characters": options.min_characters,
        "decontaminate": [f"{path} {files.sha256(path)}" for path in options.decontaminate],
    }
    if plan.columns:
        found["columns"] = list(plan.columns)
    if options.words != "none":
        found["words"] = word_segmentation.description(options.words)
    if options.labels is not None:
        found["labels"] = files.sha256(options.labels)
    if options.phonemes:
        found["phonemes"] = [phonemes.description(options.phonemes), options.word_limit]
    return found


def begin(plan: Plan, plan_inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Compares a folder with the inputs of its preparation, and records them if it is new.

    Returns:
      The manifest if the folder is complete, and None if it is new or begun.

    Raises:
      DataError: The folder was prepared or begun from other inputs.
    """
    manifest = files.read(files.join(plan.out_dir, MANIFEST))
    if manifest is not None:
        files.delete_tree(plan.work)  # A command that was killed after its last write has left it.
        return checked_record(plan.out_dir, manifest, plan_inputs, "prepared")
    path, content = files.join(plan.work, "plan.json"), canonical_json({"inputs": plan_inputs})
    begun = files.read(path)
    if begun is None and files.is_bucket(path) and not files.create_if_absent(path, content):
        begun = files.read(path)  # Another command was quicker.
    if begun is not None:
        checked_record(plan.out_dir, begun, plan_inputs, "begun")
    elif not files.is_bucket(path):
        files.write(path, content)
    return None


def finish(
    plan: Plan, plan_inputs: dict[str, Any], vocab: Vocabulary, num_partitions: int
) -> dict[str, Any]:
    """Gathers the records of all items into the manifest, writes it, and deletes the records."""
    parts = range(len(plan.parts))
    hashed = [plan.read_record("hashes", i) for i in parts]
    duplicates = [plan.read_record("duplicates", i)["ends"][-1] for i in range(num_partitions)]
    encoded = [plan.read_record("encode", i) for i in parts]
    splits = {
        split: [record["shards"][split] for record in encoded if split in record["shards"]]
        for split in ("train", "validation")
    }
    counts = {
        "documents_read": _total(hashed, "documents"),
        "documents_too_short": _total(hashed, "short"),
        "documents_copies": sum(duplicates),
    }
    for name in ("bad_lines", "cut_lines", "cut_documents"):
        counts[name] = _total(hashed, name)
    for name in ("documents_with_pairs", "unknown", "text_bytes"):
        counts[name] = _total(encoded, name)
    for split, entries in splits.items():
        for name in ("documents", "sentences", "tokens"):
            counts[f"{split}_{name}"] = _total(entries, name)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "vocabulary": vocab.fingerprint,
        "vocab_size": vocab.size,
        "splits": splits,
        "counts": counts,
        "validation_share": plan.validation_share,
        "unigram_sha256": _write_unigram(plan, vocab.size),
        "inputs": plan_inputs,
    }
    if plan.options.decontaminate:
        size = hashed[0]["ngrams"]
        found = np.zeros(size, bool)
        for i in parts:
            found |= deduplication.read_array(plan.array("overlap", i), found.dtype, 0, size)
        manifest["overlap"] = {
            "files": list(plan.options.decontaminate),
            "runs": size,
            "runs_found": int(found.sum()),
            "documents": _total(hashed, "overlapping"),
        }
    if plan.options.phonemes:
        lacking = sum((Counter(record["lacking"]) for record in encoded), Counter[str]())
        manifest["lacking"] = dict(lacking.most_common())
    if plan.columns:
        manifest["columns"] = columns.describe(front_ends.columns(plan), plan.out_dir)
    for folder in (plan.out_dir, files.join(plan.out_dir, "vocabulary")):
        files.delete_temporary_files(folder)
    files.write(files.join(plan.out_dir, MANIFEST), canonical_json(manifest))
    files.delete_tree(plan.work)
    return manifest


def _total(records: list[dict[str, Any]], name: str) -> int:
    return sum(record[name] for record in records)


def _write_unigram(plan: Plan, vocab_size: int) -> str:
    """Adds the counts of all parts up, writes them, and returns the SHA-256 of the file."""
    unigram = np.zeros(vocab_size, np.int64)
    for i in range(len(plan.parts)):
        path = plan.array("unigram", i)
        unigram += deduplication.read_array(path, unigram.dtype, 0, vocab_size)
    content = io.BytesIO()
    np.save(content, unigram, allow_pickle=False)
    files.write(files.join(plan.out_dir, "unigram.npy"), content.getbuffer())
    return hashlib.sha256(content.getbuffer()).hexdigest()


def summary(manifest: dict[str, Any]) -> list[str]:
    """Lines that tell a person what lies in a prepared folder."""
    counts = manifest["counts"]
    tokens = counts["train_tokens"] + counts["validation_tokens"]
    lines = [
        f"{counts['documents_read']:,} documents read; dropped: {counts['documents_copies']:,} "
        f"exact copies, {counts['documents_too_short']:,} nearly empty",
        f"train: {counts['train_documents']:,} documents, {counts['train_tokens']:,} tokens; held "
        f"out: {counts['validation_documents']:,} documents, "
        f"{counts['validation_tokens']:,} tokens",
    ]
    held_out = counts["validation_tokens"] / max(tokens, 1)
    if held_out > 3 * manifest["validation_share"]:
        lines.append(
            f"warning: {held_out:.2%} of the tokens are held out, not "
            f"{manifest['validation_share']:.2%}: only whole documents are, and there are few (in "
            "text files blank lines separate them)"
        )
    if counts["text_bytes"]:  # Given ids have no text.
        lines.append(
            f"unknown tokens: {counts['unknown'] / max(tokens, 1):.4%}; bytes per token: "
            f"{counts['text_bytes'] / max(tokens, 1):.2f}"
        )
    if "columns" in manifest:
        labels = manifest["columns"].get("labels")
        names = ["word starts"] * ("word_starts" in manifest["columns"])
        names += [f"labels of {labels['size']:,} words"] if labels else []
        lines.append(f"columns beside the ids: {', '.join(names)}")
    if "overlap" in manifest:
        overlap = manifest["overlap"]
        lines.append(
            f"left out: {overlap['documents']:,} documents that share text with the evaluation "
            f"files ({overlap['runs_found']:,} of their {overlap['runs']:,} runs of words)"
        )
    if manifest.get("lacking"):
        lacking = manifest["lacking"]
        lines.append(
            f"left out: {sum(lacking.values()):,} symbols that the table lacks "
            f"({', '.join(f'{symbol} {count:,}' for symbol, count in list(lacking.items())[:9])})"
        )
    if counts["bad_lines"]:
        lines.append(f"warning: {counts['bad_lines']:,} lines of bad text were left out")
    if counts["cut_lines"] or counts["cut_documents"]:
        lines.append(
            f"warning: {counts['cut_lines']:,} lines and {counts['cut_documents']:,} documents "
            "were longer than the limit and cut"
        )
    is_speech = "phonemes" in manifest["inputs"]  # It has no sentence order.
    if not counts["documents_with_pairs"] and not is_speech:
        lines.append(
            "warning: no document has two sentences, so the model cannot learn their order"
        )
    return lines
