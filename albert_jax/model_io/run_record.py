"""Reads record.json, the facts that decide the numbers of a run, and checks what belongs to it.

Weights mean something with one vocabulary only, and a checkpoint continues one run only. So the
fingerprint of the vocabulary stands in record.json and in every checkpoint, and whoever reads a
checkpoint compares its record with the run's.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from albert_jax import configfile, files
from albert_jax.errors import AlbertError, CheckpointError

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

CONFIG, RECORD, VOCABULARY = "config.toml", "record.json", "vocabulary"
"""Names of a run folder that belong together."""
ALLOWED = "allowed_changes"
"""Entry of the record: all fields that --allow-change has named since the run began. Checkpoints
from before a change differ in them."""
FIXED_FACTS = ("task", "vocabulary", "data_order", "data")
"""Facts that all checkpoints of a run share. With --allow-change data the last two may differ."""
_MAX_BYTES = 1 << 20


def read(run_dir: str) -> dict[str, Any]:
    """The record of a run. Raises CheckpointError if it is absent or not what a run has written."""
    path = files.join(run_dir, RECORD)
    data = files.read(path, limit=_MAX_BYTES)
    fix = "restore it from a copy, or use another --out"
    if data is None:
        raise CheckpointError(f"{path} is gone, so nothing tells what this run is: {fix}")
    try:
        record = json.loads(data) if len(data) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} is damaged: it is not the JSON object of a run: {fix}")
    order = record.get("data_order")
    for name, value in (("vocabulary", record.get("vocabulary")), ("data_order", order)):
        parts = value if name == "data_order" and isinstance(value, list) else [value]
        if not parts or not all(isinstance(part, str) and part for part in parts):
            raise CheckpointError(f"{path} is damaged: {name} is missing or no text: {fix}")
    return record


def is_run(path: str) -> bool:
    """Returns whether a run has begun in this folder."""
    return files.is_folder(path) and {CONFIG, RECORD} <= set(files.names(path))


def starting_point(
    run_dir: str, init: str | None, parent: str | None = None
) -> tuple[str | None, str | None]:
    """--init and --from (RUN@STEP) as absolute paths; those of the record if neither is given.

    A run that is continued begins with them again where it has no checkpoint yet. Raises
    CheckpointError.
    """
    if not (init or parent) and is_run(run_dir):
        record = read(run_dir)
        init, parent = record.get("init"), record.get("parent")
    if parent is not None:
        folder, mark, step = parent.rpartition("@")
        parent = files.absolute(folder) + mark + step if mark else files.absolute(parent)
    return None if init is None else files.absolute(init), parent


def allowed(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of the config that have been free to change in this run."""
    names = record.get(ALLOWED, [])
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def load_vocabulary(run_dir: str) -> Vocabulary:
    """The vocabulary of a run.

    Raises CheckpointError if it is not the one of the run's record, DataError if it is damaged.
    """
    from albert_jax.data.vocabularies import vocabulary as vocabularies

    path = files.join(run_dir, VOCABULARY)
    vocabulary = vocabularies.load(path)
    check_vocabulary(vocabulary, read(run_dir)["vocabulary"], path, f"the run {run_dir}")
    return vocabulary


def check_vocabulary(vocabulary: Vocabulary, expected: str, where: str, owner: str) -> None:
    """Raises CheckpointError unless the vocabulary has the fingerprint that came with weights."""
    if vocabulary.fingerprint != expected:
        raise CheckpointError(
            f"{where} is not the vocabulary of {owner} (fingerprint "
            f"{vocabulary.fingerprint[:12]} instead of {expected[:12]}): its weights would read "
            "other words: restore the files, or give the vocabulary of the training"
        )


def check_checkpoint(run_dir: str, step: int, saved: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless the record `saved` with a step is that of the run there.

    A folder that holds no run (no config or record) has nothing to compare with.
    """
    if not {CONFIG, RECORD} <= set(files.names(run_dir)):
        return
    record = read(run_dir)
    problems = differences(saved, record, files.join(run_dir, CONFIG), allowed(record))
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise CheckpointError(
            f"{run_dir}/checkpoints/{step} is a checkpoint of another run: {problems[0]}{more}: "
            "move it away; or if it is of this run, name the fields that were changed since with "
            "--allow-change"
        )


def differences(
    saved: Mapping[str, Any], record: Mapping[str, Any], config: str, allow_change: Iterable[str]
) -> list[str]:
    """The differences of a checkpoint's record from that of a run and its config, in phrases."""
    free, problems = tuple(allow_change), []
    if "config" in saved:
        try:
            old = configfile.loads(str(saved["config"]), "its config")
            problems = configfile.forbidden_changes(
                old, configfile.load(config), (*free, *configfile.PATH_FIELDS)
            )
        except AlbertError as error:
            problems = [str(error)]
    fixed = FIXED_FACTS[:2] if "data" in free else FIXED_FACTS
    for name in fixed:
        if name in saved and name in record and saved[name] != record[name]:
            old, new = shown_change(saved[name], record[name])
            problems.append(f"its {name.replace('_', ' ')} is {old}, not {new}")
    return problems


def shown_change(old: Any, new: Any) -> tuple[str, str]:
    """The beginnings of two unequal facts, for a message; of lists, their first unequal entries."""
    if isinstance(old, list) and isinstance(new, list):
        entries = itertools.zip_longest(old, new, fillvalue="none")
        old, new = next((a, b) for a, b in entries if a != b)
    return str(old)[:12], str(new)[:12]
