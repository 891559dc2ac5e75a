"""Every digest, number and record of a run, a prepared folder or an export, read without writing.

A start checks what it is about to use; here everything is checked that a folder holds, also
checkpoints, records and files that nobody may read for months (docs/security.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax import configfile, files
from albert_jax.checkpoint import manifest
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.checkpoint.manifest import Layout
from albert_jax.data.corpus.corpus import MANIFEST, Corpus, read_manifest
from albert_jax.data.corpus.shards import SUFFIXES, ShardReader
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import AlbertError, CheckpointError, DataError, OtherVersionError
from albert_jax.json_files import read_json
from albert_jax.model_io import directories, huggingface, plbert, run_record
from albert_jax.model_io.safetensors_files import REPORT_NAME, Tensors
from albert_jax.model_io.tokenizer_json import tokenizer_files
from albert_jax.model_io.weights import LazyTensors, check_finite, check_vocabulary
from albert_jax.observe.metrics import row_of

MAX_DAMAGED = 20
"""Most damaged records of a shard that are named."""
_ENCODER = ("albert.", "embeddings.", "encoder.", "pooler.", "predictions.", "sop_classifier.")
"""Beginnings of the names of all tensors but those of a task's head."""


@dataclass(frozen=True)
class Check:
    """One line of the table: what was read, what is to be said of it, and how many bytes it has."""

    name: str
    found: str
    ok: bool = True
    size: int = 0


Checks = Iterator[Check]


def kind_of(path: str) -> str:
    """ "run", "prepared folder" or "export". Raises CheckpointError for anything else."""
    names = set(files.names(path)) if files.is_folder(path) else set()
    if "config.toml" in names and names & {"record.json", "checkpoints", "metrics.jsonl"}:
        return "run"
    if MANIFEST in names:
        return "prepared folder"
    if names & {directories.PARAMS_NAME, huggingface.WEIGHTS_NAME, *huggingface.GRAPHS}:
        return "export"
    raise CheckpointError(
        f"{path} is not a run, a prepared folder or an exported directory: name one of these"
    )


def verify(path: str) -> Checks:
    """The checks of a folder, one after the other. Raises CheckpointError as `kind_of`."""
    kinds = {"run": _run, "prepared folder": _prepared, "export": _export}
    return kinds[kind_of(path)](path)


def _check(name: str, call: Callable[[], str], size: int = 0) -> Check:
    """A line with the text that `call` returns, or a damaged line with its error."""
    try:
        return Check(name, call(), size=size)
    except OtherVersionError:
        raise  # What another version wrote is not damaged.
    except AlbertError as error:
        return Check(name, str(error), False, size)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        return Check(name, f"it cannot be understood ({type(error).__name__}: {error})", False)


# ---- a run ---------------------------------------------------------------------------------------


def _data_order(order: str | list[str]) -> str:
    """The hash of the order, of several the one of the first phase, shortened."""
    return f"data order {(order if isinstance(order, str) else order[0])[:12]}"


def _run(path: str) -> Checks:
    yield _check("config.toml", lambda: f"{configfile.load(path).steps:,} steps")
    yield _check("record.json", lambda: _data_order(run_record.read(path)["data_order"]))

    def vocabulary() -> str:
        found = run_record.load_vocabulary(path)
        check_vocabulary(found, configfile.load(path).model)
        return f"{found.size:,} tokens, {found.fingerprint[:12]}"

    yield _check("vocabulary", vocabulary)
    layout = Layout(path)
    checkpoints = Checkpoints(path, read_only=True)
    for step in manifest.step_numbers(layout.checkpoints):
        if manifest.is_unfinished(layout, step):
            yield Check(f"checkpoint {step}", "an unfinished save, which no start takes")
            continue
        if files.is_other(layout.step(step)):
            yield Check(f"checkpoint {step}", "it is not a folder", False)
            continue
        size = sum(files.file_sizes(layout.step(step)).values())
        found = _check(f"checkpoint {step}", partial(_checkpoint, path, checkpoints, step), size)
        if not found.ok and step not in manifest.step_numbers(layout.checkpoints):
            found = Check(found.name, "the run has deleted it meanwhile")
        yield found
    checkpoints.close()
    yield _check("metrics.jsonl", lambda: _metrics(path))


def _checkpoint(path: str, checkpoints: Checkpoints, step: int) -> str:
    restored = checkpoints.restore(checkpoints.shapes(step), step)
    assert restored is not None  # A step that is named is there, or refused.
    run_record.check_checkpoint(path, step, restored.record)
    return "its digests match, all numbers are finite"


def _metrics(path: str) -> str:
    lines = (files.read(files.join(path, "metrics.jsonl")) or b"").split(b"\n")[:-1]
    bad = [number for number, line in enumerate(lines, start=1) if row_of(line) is None]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(lines)} lines are not rows, the first is line {bad[0]}"
        )
    return f"{len(lines)} rows"


# ---- a prepared folder ---------------------------------------------------------------------------


def _prepared(path: str) -> Checks:
    try:
        splits = read_manifest(Path(path)).get("splits")
    except AlbertError as error:
        yield Check(MANIFEST, str(error), False)
        return
    splits = splits if isinstance(splits, dict) else {}
    yield Check(MANIFEST, ", ".join(map(str, splits)), bool(splits))
    for split, entries in splits.items():
        if not entries:
            continue
        try:
            corpus = Corpus.open(path, split)
        except AlbertError as error:
            yield Check(str(split), str(error), False)
            continue
        found = [check for shard in corpus.shards for check in _shard(shard)]
        bad = [check for check in found if not check.ok]
        yield from bad
        counts = f"{len(corpus.shards)} shards, {corpus.num_windows} records"
        size = sum(check.size for check in found if check.ok)
        yield Check(split, counts + f", {len(bad)} faults" * bool(bad), not bad, size)
        yield _check(f"{split}: vocabulary", lambda c=corpus: c.vocabulary().fingerprint[:12])
    yield _check("unigram.npy", lambda: _unigram(path))


def _shard(shard: ShardReader) -> Checks:
    """The digest of a shard's records, and each of them."""
    name = shard.entry["name"] + SUFFIXES[0]
    file, expected = str(shard.directory / name), shard.entry["files"][name]

    def digest() -> str:
        if files.sha256(file) != expected["sha256"]:
            raise DataError(f"{file} does not match its checksum in {MANIFEST}")
        return ""

    yield _check(name, digest, sum(entry["bytes"] for entry in shard.entry["files"].values()))
    damaged = 0
    for window in range(len(shard.windows)):
        check = _check(f"{name}: record {window}", lambda w=window: str(len(shard.ids(w))))
        damaged += not check.ok
        if not check.ok and damaged <= MAX_DAMAGED:
            yield check
    if damaged > MAX_DAMAGED:
        yield Check(name, f"{damaged - MAX_DAMAGED} more records are damaged", False)


def _unigram(path: str) -> str:
    expected = read_manifest(Path(path)).get("unigram_sha256")
    if files.sha256(files.join(path, "unigram.npy")) != expected:
        raise DataError(f"{path}/unigram.npy does not match its checksum in {MANIFEST}")
    return "matches its checksum"


# ---- an export -----------------------------------------------------------------------------------


def _export(path: str) -> Checks:
    folder = Path(path)
    names = (directories.PARAMS_NAME, huggingface.WEIGHTS_NAME, *huggingface.GRAPHS)
    for name in (name for name in names if (folder / name).exists()):
        size = (folder / name).stat().st_size
        yield _check(name, lambda name=name: _digest(folder, name), size)
        if name == directories.PARAMS_NAME or (folder / plbert.CONFIG_NAME).is_file():
            yield _check("parameters and vocabulary", lambda: _native(path))
            return
        if name == huggingface.WEIGHTS_NAME:
            yield _check("parameters", lambda: _tensors(folder))
    yield _check("vocabulary", lambda: _vocabulary(folder))


def _digest(folder: Path, name: str) -> str:
    """Compares a file with the digest that its export has noted."""
    report = read_json(folder / REPORT_NAME) if (folder / REPORT_NAME).exists() else {}
    noted = report.get("sha256")
    expected = noted.get(name) if isinstance(noted, dict) else None
    if expected is None:
        return "no digest was noted"
    if files.sha256(str(folder / name)) != expected:
        raise CheckpointError(f"{folder / name} does not match its digest in {REPORT_NAME}")
    return "matches its digest"


def _native(path: str) -> str:
    weights = directories.read(path)
    known = "verified" if weights.vocabulary and weights.fingerprint else "unverified"
    return f"{weights.config.num_hidden_layers} layers, finite, vocabulary {known}"


def _tensors(folder: Path) -> str:
    """Names, shapes and numbers of all tensors; a head may have any name."""
    tensors = Tensors(folder / huggingface.WEIGHTS_NAME)
    where = str(tensors.path)
    config = huggingface.read_config(
        read_json(folder / huggingface.CONFIG_NAME), str(folder / huggingface.CONFIG_NAME)
    )
    known = {name: name for name in tensors if name.startswith(_ENCODER)}
    huggingface.from_huggingface(LazyTensors(known, tensors.__getitem__), config, where)
    head = [name for name in tensors if name not in known]
    check_finite({name: np.asarray(tensors[name], np.float32) for name in head}, where)
    return f"{len(tensors)} tensors, finite"


def _vocabulary(folder: Path) -> str:
    """The vocabulary beside weights or a graph, and what tokenizer.json holds of it."""
    described = folder / huggingface.CONFIG_NAME
    raw = read_json(described)
    expected = huggingface.fingerprint_in(raw, described)
    if not directories.holds_vocabulary(folder):
        return "none beside it"
    found = vocabularies.load(str(folder))
    if expected is None:
        return f"{found.size:,} tokens, unverified"
    config = huggingface.read_config(raw, str(described))
    check_vocabulary(found, config)
    run_record.check_vocabulary(found, expected, str(folder), f"the model {folder}")
    made = tokenizer_files(found, config.max_position_embeddings).get("tokenizer.json", b"{}")
    stored = files.read(str(folder / "tokenizer.json"), limit=vocabularies.MAX_BYTES)
    if stored is not None and _pieces(stored) != _pieces(made):
        raise CheckpointError(f"{folder}/tokenizer.json has other tokens than the vocabulary")
    return f"{found.size:,} tokens, {found.fingerprint[:12]}"


def _pieces(tokenizer: bytes) -> Any:
    """The tokens of a tokenizer.json in their order; None if it cannot be read."""
    try:
        return json.loads(tokenizer)["model"]["vocab"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
