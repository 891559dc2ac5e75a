"""Documents to prepared folders: tokenised once, without masks, copies or row lengths.

``prepare`` plans, does the items of stages.py in this process or a pool, and writes the
manifest last. Killed at any moment, the same command goes on with the items that are not whole.
With ``shard=(i, n)`` n commands on one shared folder divide the items; each step waits for all
items of the one before, and command 0 writes the manifest. With ``beam`` the workers of an Apache
Beam runner do the items. The bytes are the same either way.
"""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import numpy as np

from albert_jax import files
from albert_jax.data.corpus.corpus import FORMAT
from albert_jax.data.prepare import beam
from albert_jax.data.prepare import deduplication as dedup
from albert_jax.data.prepare import steps as stages
from albert_jax.data.prepare.steps import Plan
from albert_jax.data.sources import sentences, sources
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.fingerprint import json_bytes
from albert_jax.errors import ConfigError, DataError, PeerError, StorageError

HELD_OUT_BYTES = 5_000_000
"""Text that the default share holds out of a large corpus; of a small one it is 5%."""
PATIENCE = 86_400.0
"""Seconds without a new item that a shard waits for the others."""


def prepare(
    specs: Sequence[str],
    vocab: vocabulary.Vocabulary,
    out_dir: str,
    *,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    runner: Sequence[str] = (),
    options: ReadOptions | None = None,
    rule: sentences.Rule = "split",
    language: str = "en",
    validation_share: float | None = None,
    min_characters: int = 20,
    decontaminate: Sequence[str] = (),
    part_bytes: int = sources.PART_BYTES,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Prepares sources into a folder and returns its manifest; done already: at once.

    Args:
      specs: names of sources (sources.py).
      vocab: makes the ids; a copy of its files is kept in the folder.
      out_dir: the prepared folder; it may lie in a bucket, from which it is copied for training.
      workers: processes; None: one per core and part; small corpora need none.
      shard: (i, n): this command does items i, i + n, ... on a folder that n commands share.
      runner: Beam runner that does the items, and its options (beam.py); empty: this machine.
      options: how files are understood.
      rule, language: sentence splitting (sentences.py).
      validation_share: share of the groups that is held out, chosen by hash; None: 5%, and less
        of corpora above 100 MB (5 MB of text). At least one group is held out.
      min_characters: shorter documents are dropped and counted.
      decontaminate: evaluation files whose runs of words are counted in the training text.
      part_bytes: size of a work item; part of what decides the bytes.
      say: gets progress and warnings, line by line.

    Raises:
      DataError: a corpus that cannot be used, or a folder that belongs to other settings.
      StorageError: a folder that cannot be written, or that another command is preparing.
      PeerError: a worker or another shard is gone.
    """
    say = say or _silent
    sentences.check_language(language)
    _check_arguments(shard, validation_share, workers, runner)
    out_dir = out_dir if files.is_bucket(out_dir) else os.path.abspath(out_dir)
    options = options or ReadOptions()
    parts = tuple(sources.parts(specs, options, part_bytes))
    total = sum(part.weight for part in parts)
    share = min(0.05, HELD_OUT_BYTES / total) if validation_share is None else validation_share
    plan = Plan(
        out_dir=out_dir,
        parts=parts,
        options=options,
        rule=rule,
        language=language,
        validation_share=share,
        min_characters=min_characters,
        evaluation_files=tuple(decontaminate),
    )
    inputs = _inputs(plan, vocab)
    with _lock(out_dir, shard):
        manifest = _begun(plan, inputs)
        if manifest is not None:
            files.delete_tree(plan.work)  # A command killed behind its last write has left it.
            say(f"{out_dir} is prepared already")
            return manifest
        if shard[0] == 0 or files.read(files.join(plan.work, "plan.json")) is None:
            _begin(plan, inputs)
            vocabulary.save(vocab, files.join(out_dir, "vocabulary"))
        with _Doer(plan, workers, shard, runner, say) as do:
            return _run(plan, inputs, vocab, do, shard, say)


def finish(plan: Plan, inputs: dict[str, Any], vocab: vocabulary.Vocabulary) -> dict[str, Any]:
    """Gathers the records of all items into the manifest, writes it, and removes the rest."""
    count = range(len(plan.parts))
    hashed = [stages.read_record(plan.record("hash", i)) for i in count]
    ranges = dedup.ranges(sum(record["documents"] for record in hashed))
    copies = [stages.read_record(plan.record("drop", i))["copies"] for i in range(ranges)]
    encoded = [stages.read_record(plan.record("encode", i)) for i in count]
    splits = {
        split: [r["shards"][split] for r in encoded if split in r["shards"]]
        for split in ("train", "validation")
    }
    counts = {
        "documents_read": sum(record["documents"] for record in hashed),
        "documents_too_short": sum(record["short"] for record in hashed),
        "documents_copies": sum(copies),
    }
    for name in ("bad_lines", "cut_lines", "cut_documents"):
        counts[name] = sum(record[name] for record in hashed)
    for name in ("documents_with_pairs", "unknown", "text_bytes"):
        counts[name] = sum(record[name] for record in encoded)
    for split, entries in splits.items():
        for name in ("documents", "sentences", "tokens"):
            counts[f"{split}_{name}"] = sum(entry[name] for entry in entries)
    unigram = np.zeros(vocab.size, np.int64)
    for i in count:
        unigram += dedup.read_array(plan.array("unigram", i))
    path = files.join(plan.out_dir, "unigram.npy")
    dedup.write_array(path, unigram)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "vocabulary": vocab.fingerprint,
        "vocab_size": vocab.size,
        "splits": splits,
        "counts": counts,
        "validation_share": plan.validation_share,
        "unigram_sha256": files.sha256(path),
        "inputs": inputs,
    }
    if plan.evaluation_files:
        found = np.any([dedup.read_array(plan.array("overlap", i)) for i in count], axis=0)
        manifest["overlap"] = {
            "files": list(plan.evaluation_files),
            "runs": int(found.size),
            "runs_found": int(found.sum()),
            "documents": sum(record["documents_with_overlap"] for record in encoded),
        }
    for folder in (plan.out_dir, files.join(plan.out_dir, "vocabulary")):
        files.delete_unfinished(folder)
    files.write(files.join(plan.out_dir, "manifest.json"), json_bytes(manifest))
    files.delete_tree(plan.work)
    return manifest


def threshold(plan: Plan) -> int:
    """Groups with a hash below it are held out: the share, but at least one group and not all.

    Raises:
      DataError: fewer than two usable groups of documents.
    """
    hashed = [stages.read_record(plan.record("hash", i)) for i in range(len(plan.parts))]
    outer = sorted({group for record in hashed for group in record["outer_groups"]})
    if len(outer) < 2:
        usable = sum(record["documents"] - record["short"] for record in hashed)
        raise DataError(
            f"{plan.parts[0].path}: {usable} usable documents were found and at least 2 different "
            "ones are needed, one of them held out: give more text, or part it by blank lines"
        )
    if not plan.validation_share:
        return 0
    return min(max(int(plan.validation_share * 2.0**64), outer[0] + 1), outer[-1])


def _run(
    plan: Plan,
    inputs: dict[str, Any],
    vocab: vocabulary.Vocabulary,
    do: _Doer,
    shard: tuple[int, int],
    say: Callable[[str], None],
) -> dict[str, Any]:
    count = len(plan.parts)
    do("hash", stages.hash_part, [(i,) for i in range(count)], "documents read")
    documents = sum(stages.read_record(plan.record("hash", i))["documents"] for i in range(count))
    limit, ranges = threshold(plan), dedup.ranges(documents)
    do("drop", stages.reduce_range, [(i, ranges) for i in range(ranges)], "duplicates found")
    items = [(i, ranges, limit) for i in range(count)]
    do("encode", stages.encode_part, items, "shards written", wait=shard[0] == 0)
    if shard[0]:
        return {}
    manifest = finish(plan, inputs, vocab)
    for line in report(manifest):
        say(line)
    return manifest


def report(manifest: dict[str, Any]) -> list[str]:
    """What a person should know of a prepared folder, in a few lines."""
    counts = manifest["counts"]
    tokens = counts["train_tokens"] + counts["validation_tokens"]
    lines = [
        f"{counts['documents_read']:,} documents read; dropped: {counts['documents_copies']:,} "
        f"exact copies, {counts['documents_too_short']:,} nearly empty",
        f"train: {counts['train_documents']:,} documents, {counts['train_tokens']:,} tokens; held "
        f"out: {counts['validation_documents']:,} documents, "
        f"{counts['validation_tokens']:,} tokens",
        f"unknown pieces: {counts['unknown'] / max(tokens, 1):.4%}; bytes per token: "
        f"{counts['text_bytes'] / max(tokens, 1):.2f}",
    ]
    if counts["bad_lines"]:
        lines.append(f"warning: {counts['bad_lines']:,} lines of bad text were left out")
    if counts["cut_lines"] or counts["cut_documents"]:
        lines.append(
            f"warning: {counts['cut_lines']:,} lines and {counts['cut_documents']:,} documents "
            "were longer than the limit and cut"
        )
    if not counts["documents_with_pairs"]:
        lines.append(
            "warning: no document has two sentences, so nothing can be learnt about their order"
        )
    if "overlap" in manifest:
        found = manifest["overlap"]
        lines.append(
            f"evaluation text: {found['runs_found']:,} of {found['runs']:,} runs of words stand in "
            f"the training text, in {found['documents']:,} documents"
        )
    return lines


class _Doer:
    """Does the items of a step that are not whole and belong to this shard."""

    def __init__(
        self,
        plan: Plan,
        workers: int | None,
        shard: tuple[int, int],
        runner: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self.plan, self.shard, self.say = plan, shard, say
        self.runner = runner
        items = range(shard[0], len(plan.parts), shard[1])
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.workers = min(workers or cores or 1, len(items))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Doer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(
        self,
        stage: str,
        function: Callable[..., None],
        items: list[tuple[Any, ...]],
        what: str,
        wait: bool = True,
    ) -> None:
        here = set(files.names(self.plan.work))
        mine = [item for item in items if item[0] % self.shard[1] == self.shard[0]]
        left = [item for item in mine if f"{stage}-{item[0]:05d}.json" not in here]
        if left and self.runner:
            failures = files.join(self.plan.work, "failed")
            beam.do(self.runner, functools.partial(function, self.plan), left, failures)
            self._tell(what, len(left), left)
        elif len(left) < 2 or self.workers < 2:
            for done, item in enumerate(left, 1):
                function(self.plan, *item)
                self._tell(what, done, left)
        else:
            self._in_pool(function, left, what)
        if wait and self.shard[1] > 1:
            self._wait(stage, len(items))

    def _in_pool(self, function: Callable[..., None], left: list[Any], what: str) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context)
        futures = [self._pool.submit(function, self.plan, *item) for item in left]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                self._tell(what, done, left)
        except BrokenProcessPool as error:
            raise PeerError(
                "a worker process was killed, perhaps for want of memory: run the same command "
                "again, with fewer --workers"
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _tell(self, what: str, done: int, left: list[Any]) -> None:
        if len(left) > 1:
            self.say(f"{what}: {done} of {len(left)} parts")

    def _wait(self, stage: str, count: int) -> None:
        wanted = {f"{stage}-{i:05d}.json" for i in range(count)}
        missing, since = len(wanted) + 1, time.monotonic()
        while lacking := wanted - set(files.names(self.plan.work)):
            if len(lacking) < missing:
                missing, since = len(lacking), time.monotonic()
            if time.monotonic() - since > PATIENCE:
                number = int(min(lacking).partition("-")[2][:5])
                raise PeerError(
                    f"no news for {PATIENCE:.0f} s of part {number}, which shard "
                    f"{number % self.shard[1]}/{self.shard[1]} does: start that shard again"
                )
            time.sleep(0.2)


def _check_arguments(
    shard: tuple[int, int],
    validation_share: float | None,
    workers: int | None,
    runner: Sequence[str],
) -> None:
    if runner and (workers or shard != (0, 1)):
        raise ConfigError("Beam divides the work itself: leave workers and shard away")
    if not 0 <= shard[0] < shard[1]:
        raise ConfigError(f"shard {shard[0]}/{shard[1]}: give I/N with I from 0 to N - 1")
    if validation_share is not None and not 0 <= validation_share <= 0.5:
        raise ConfigError(f"validation share {validation_share}: it must lie between 0 and 0.5")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers {workers}: it must be at least 1")


def _inputs(plan: Plan, vocab: vocabulary.Vocabulary) -> dict[str, Any]:
    """What decides the bytes of a folder, in a form that can be compared and told."""
    return {
        "sources": [part.identity() for part in plan.parts],
        "vocabulary": vocab.fingerprint,
        "reading": dataclasses.asdict(plan.options),
        "sentences": sentences.description(plan.rule, plan.language),
        "validation_share": plan.validation_share,
        "min_characters": plan.min_characters,
        "decontaminate": list(plan.evaluation_files),
    }


def _begun(plan: Plan, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest if the folder is whole; None if it is empty or begun with the same inputs.

    Raises:
      DataError: the folder belongs to other inputs; says which.
    """
    whole = files.read(files.join(plan.out_dir, "manifest.json"))
    begun = whole or files.read(files.join(plan.work, "plan.json"))
    if begun is None:
        return None
    try:
        found = json.loads(begun)
        before = found["inputs"] if whole else found
        other = sorted(key for key in inputs if before.get(key) != inputs[key])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{plan.out_dir}: its manifest is damaged: delete the folder") from error
    if other:
        raise DataError(
            f"{plan.out_dir}: was {'prepared' if whole else 'begun'} from other inputs "
            f"({', '.join(other)}): choose another --out or delete it"
        )
    return found if whole else None


def _begin(plan: Plan, inputs: dict[str, Any]) -> None:
    """Writes down what is being prepared."""
    path, content = files.join(plan.work, "plan.json"), json_bytes(inputs)
    if not files.is_bucket(path):
        files.write(path, content)
    elif not files.create(path, content):
        _begun(plan, inputs)  # another command was quicker: with the same inputs it does no harm


@contextmanager
def _lock(out_dir: str, shard: tuple[int, int]) -> Iterator[None]:
    """Refuses a second command on the same folder and shard; ends with the process.

    A bucket has no lock of that kind, and needs none: objects are written whole, and two commands
    with the same inputs write the same ones.
    """
    files.make_folder(out_dir)
    if files.is_bucket(out_dir):
        yield
        return
    path = files.join(out_dir, f".lock-{shard[0]}-of-{shard[1]}")
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
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        os.unlink(path)


def _silent(_: str) -> None:
    return
