"""Turning documents into a prepared folder: tokenized once, without masks or row lengths.

`prepare` plans the work, does the steps of steps.py, and writes the manifest last. If it is killed,
the same command goes on with the items that are not complete. Several commands may share one
folder (`shard`): each does some of the items, each step waits for all items of the one before, and
command 0 writes the manifest.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from albert_jax import files
from albert_jax.data.corpus.columns import LABELS, read_labels
from albert_jax.data.corpus.corpus import MANIFEST
from albert_jax.data.prepare import deduplication, manifest, steps, word_segmentation
from albert_jax.data.prepare.executor import Executor
from albert_jax.data.prepare.plan import Plan, PrepareOptions
from albert_jax.data.sources import sentences, sources, token_ids
from albert_jax.data.sources.document import Part
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError, StorageError

HELD_OUT_BYTES = 5_000_000
"""Text that the default share holds out of a large corpus; of a small one it is 5%."""


def prepare(
    specs: Sequence[str],
    vocab: Vocabulary,
    out_dir: str,
    options: PrepareOptions | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Prepares sources into a folder, unless that is done already, and returns its manifest.

    Args:
      specs: Names of sources; see sources.py.
      vocab: The vocabulary that makes the ids. The folder keeps a copy of its files.
      out_dir: The prepared folder, which may lie in a bucket.
      options: How to prepare.
      log: Called with progress and warnings, line by line.

    Returns:
      The manifest; for a shard other than 0, which does not wait for the others, an empty one.

    Raises:
      DataError: The corpus cannot be used, or the folder was prepared from other inputs.
      StorageError: The folder cannot be written, or another command is preparing it.
      PeerError: A worker or another shard is gone.
    """
    options = options or PrepareOptions()
    sentences.check_language(options.language)
    word_segmentation.check(options.words, vocab, phonemes=bool(options.phonemes))
    out_dir = out_dir if files.is_bucket(out_dir) else os.path.abspath(out_dir)
    parts = tuple(sources.parts(specs, options.reading, options.part_bytes))
    share = options.validation_share
    if share is None:
        share = min(0.05, HELD_OUT_BYTES / sum(part.weight for part in parts))
    plan = Plan(
        out_dir=out_dir,
        parts=parts,
        options=options,
        validation_share=share,
        vocabulary=vocab.fingerprint,
        columns=_columns(parts, options),
    )
    inputs = manifest.inputs(plan, vocab)
    new = _is_new(plan)
    with _lock(plan):
        done = manifest.begin(plan, inputs)
        if done is not None:
            log(f"{out_dir} is prepared already{_changed_since(plan)}")
            return done
        vocabulary.save(vocab, files.join(out_dir, "vocabulary"))
        if options.labels is not None:
            labels = "\n".join(read_labels(options.labels)) + "\n"
            files.write(files.join(out_dir, LABELS), labels.encode())
        with _deleted_if_refused(plan, new=new), Executor(plan, log) as executor:
            num_partitions = _run_steps(plan, executor)
        if options.shard[0]:
            return {}
        written = manifest.finish(plan, inputs, vocab, num_partitions)
    for line in manifest.summary(written):
        log(line)
    return written


def _is_new(plan: Plan) -> bool:
    """Returns whether the folder is empty. Raises DataError for that of a run or a vocabulary."""
    names, own = set(files.names(plan.out_dir)), {MANIFEST, os.path.basename(plan.work)}
    if names & {"config.toml", "vocabulary", "spiece.model"} and not names & own:
        raise DataError(f"{plan.out_dir} holds a model or a vocabulary: choose another --out")
    return not names


def _changed_since(plan: Plan) -> str:
    """A warning of the first local source that is newer than the finished folder, or "".

    Sizes were compared before, but an edit may keep them.
    """
    if files.is_bucket(plan.out_dir):
        return ""
    finished = os.stat(files.join(plan.out_dir, MANIFEST)).st_mtime_ns
    newer = [part.path for part in plan.parts if part.state[1] > finished]
    return f" (warning: {newer[0]} was changed since: delete it to prepare again)" if newer else ""


def _columns(parts: Sequence[Part], options: PrepareOptions) -> tuple[str, ...]:
    """The columns that all documents have. Raises DataError if only some of them have one."""
    if options.phonemes:
        return "word_starts", "labels"
    columns = token_ids.columns(parts)
    if options.words != "none" and any(part.kind == "ids" for part in parts):
        raise ConfigError("--words is for text: token ids have a column word_starts instead")
    if (options.labels is None) == ("labels" in columns):
        problem = "have a column labels" if "labels" in columns else "have no column labels"
        raise DataError(
            f"{parts[0].path}: its documents {problem}: give --labels FILE with the words of the "
            "labels if and only if there is one"
        )
    if options.labels is not None:
        read_labels(options.labels)
    return columns if options.words == "none" else ("word_starts",)


def _run_steps(plan: Plan, executor: Executor) -> int:
    """Does all items of this shard and returns the number of hash partitions."""
    parts = range(len(plan.parts))
    executor.run("hashes", steps.hash_part, [(i,) for i in parts], "documents read")
    hashed = [plan.read_record("hashes", i) for i in parts]
    threshold = _held_out_threshold(plan, hashed)

    count = deduplication.num_partitions(sum(record["documents"] for record in hashed))
    items: list[tuple[Any, ...]] = []
    for partition in range(count):
        ends = (record["prefix_ends"] for record in hashed)
        items.append((partition, [deduplication.partition_rows(e, partition, count) for e in ends]))
    executor.run("duplicates", steps.find_duplicates, items, "duplicates found")

    # Each list begins with 0, so that duplicates of part i lie between entries i and i + 1.
    bounds = [[0, *plan.read_record("duplicates", i)["ends"]] for i in range(count)]
    items = [(i, [(b[i], b[i + 1]) for b in bounds], threshold) for i in parts]
    if plan.options.phonemes:
        executor.run("words", steps.count_part, items, "words counted")
        steps.write_labels(plan)
    executor.run("encode", steps.encode_part, items, "shards written", wait=executor.index == 0)
    return count


def _held_out_threshold(plan: Plan, hashed: list[dict[str, Any]]) -> int:
    """The hash below which groups are held out: the share, but at least one group and not all.

    Raises DataError if there are fewer than two usable groups of documents.
    """
    outer = sorted({group for record in hashed for group in record["outer_groups"]})
    if len(outer) == 1 and plan.validation_share == 0:
        return 0
    if len(outer) < 2:
        usable = sum(r["documents"] - r["short"] - r["overlapping"] for r in hashed)
        raise DataError(
            f"{plan.parts[0].path}: {usable} usable documents (or parts of one that was cut) were "
            "found and at least 2 different ones are needed, one of them held out: give more text, "
            "separate its documents by blank lines, or give --format lines for one document a line"
        )
    if not plan.validation_share:
        return 0
    return min(max(int(plan.validation_share * 2.0**64), outer[0] + 1), outer[-1])


@contextmanager
def _deleted_if_refused(plan: Plan, *, new: bool) -> Iterator[None]:
    """Deletes a new folder when its text is refused: no part of it would fit other text."""
    try:
        yield
    except DataError:
        if new and plan.options.shard[1] == 1:
            files.delete_tree(plan.out_dir)
        raise


@contextmanager
def _lock(plan: Plan) -> Iterator[None]:
    """Refuses a second command on the same local folder and shard; it ends with the process.

    The file is deleted with the work folder after the manifest is written. A command that locks
    the deleted file reads the manifest next and sees that nothing is left to do. A bucket needs no
    lock, because two commands with the same inputs write the same objects.
    """
    files.make_folder(plan.work)
    if files.is_bucket(plan.work):
        yield
        return
    index, count = plan.options.shard
    path = files.join(plan.work, f"lock-{index}-of-{count}")
    with files.storage_errors(path):
        file = open(path, "a+")  # noqa: SIM115 - closed below, and by the end of the process
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read(200).strip() or "another process"
            raise StorageError(
                f"{plan.out_dir}: is being prepared by {owner}: wait for it or choose another --out"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
