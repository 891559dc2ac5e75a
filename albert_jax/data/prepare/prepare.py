"""Turning documents into a prepared folder: tokenized once, without masks or row lengths.

`prepare` plans the work, does the items of steps.py, and writes the manifest last. If it is killed,
the same command goes on with the items that are not complete. Several commands may share one
folder (`shard`): each does its part of the items, each step waits for all items of the one before,
and command 0 writes the manifest. The bytes do not depend on who did the work.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from albert_jax import files
from albert_jax.data.prepare import deduplication, manifest, steps
from albert_jax.data.prepare.executor import Executor
from albert_jax.data.prepare.plan import Plan, PrepareOptions
from albert_jax.data.sources import sentences, sources
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError, StorageError

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
    out_dir = out_dir if files.is_bucket(out_dir) else os.path.abspath(out_dir)
    parts = tuple(sources.parts(specs, options.reading, options.part_bytes))
    share = options.validation_share
    if share is None:
        share = min(0.05, HELD_OUT_BYTES / sum(part.weight for part in parts))
    plan = Plan(out_dir=out_dir, parts=parts, options=options, validation_share=share)
    inputs = manifest.inputs(plan, vocab)
    with _lock(out_dir, options.shard):
        done = manifest.begin(plan, inputs)
        if done is not None:
            log(f"{out_dir} is prepared already")
            return done
        vocabulary.save(vocab, files.join(out_dir, "vocabulary"))
        with Executor(plan, log) as executor:
            num_ranges = _run_steps(plan, executor)
        if options.shard[0]:
            return {}
        written = manifest.finish(plan, inputs, vocab, num_ranges)
    for line in manifest.summary(written):
        log(line)
    return written


def _run_steps(plan: Plan, executor: Executor) -> int:
    """Does all items of this shard and returns the number of ranges of hashes."""
    count = len(plan.parts)
    items: list[tuple[Any, ...]] = [(i,) for i in range(count)]
    executor.run("hashes", steps.hash_part, items, "documents read")
    executor.wait("hashes", count)
    hashed = [plan.read_record("hashes", i) for i in range(count)]
    threshold = _held_out_threshold(plan, hashed)
    num_ranges = deduplication.num_ranges(sum(record["documents"] for record in hashed))
    ends = [record["prefix_ends"] for record in hashed]
    items = [
        (i, [deduplication.stretch(part_ends, i, num_ranges) for part_ends in ends])
        for i in range(num_ranges)
    ]
    executor.run("copies", steps.find_copies, items, "duplicates found")
    executor.wait("copies", num_ranges)
    ends = [plan.read_record("copies", i)["ends"] for i in range(num_ranges)]
    items = [
        (i, [(range_ends[i - 1] if i else 0, range_ends[i]) for range_ends in ends], threshold)
        for i in range(count)
    ]
    executor.run("encode", steps.encode_part, items, "shards written")
    if executor.index == 0:
        executor.wait("encode", count)
    return num_ranges


def _held_out_threshold(plan: Plan, hashed: list[dict[str, Any]]) -> int:
    """The hash below which groups are held out: the share, but at least one group and not all.

    Raises:
      DataError: There are fewer than two usable groups of documents.
    """
    outer = sorted({group for record in hashed for group in record["outer_groups"]})
    if len(outer) < 2:
        usable = sum(r["documents"] - r["short"] - r["overlapping"] for r in hashed)
        raise DataError(
            f"{plan.parts[0].path}: {usable} usable documents were found and at least 2 different "
            "ones are needed, one of them held out: give more text, or part it by blank lines"
        )
    if not plan.validation_share:
        return 0
    return min(max(int(plan.validation_share * 2.0**64), outer[0] + 1), outer[-1])


@contextmanager
def _lock(out_dir: str, shard: tuple[int, int]) -> Iterator[None]:
    """Refuses a second command on the same folder and shard; the lock ends with the process.

    A bucket has no such lock and needs none: objects are written as a whole, and two commands with
    the same inputs write the same ones.

    Raises:
      StorageError: Another process holds the lock, or the folder cannot be written.
    """
    files.make_folder(out_dir)
    if files.is_bucket(out_dir):
        yield
        return
    path = files.join(out_dir, f".lock-{shard[0]}-of-{shard[1]}")
    while True:
        with files.storage_errors(path):
            file = open(path, "a+")  # noqa: SIM115 - closed below, and by the end of the process
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read(200).strip() or "another process"
                raise StorageError(
                    f"{out_dir}: is being prepared by {owner}: wait for it or choose another --out"
                ) from error
            if not _is_at(path, file.fileno()):
                continue  # Its owner has deleted the file since it was opened here.
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield
            os.unlink(path)
            return


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
