"""What a run folder says about its run beside the checkpoints, and who may go on in it.

config.toml is the resolved config (rerunning from it repeats the run), record.json what else
decides the numbers (vocabulary, data order, packages, flags, threads), vocabulary/ the files
that turn text into ids. All of it is written before the first step and checked at every restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.errors import CheckpointError, DataError

FIXED = ("vocabulary", "data_order")
"""Facts of the record that a run cannot change on its way."""

OWN = frozenset({"lock", "lock.claim", "rows", "vocabulary", "record.json"})
"""What a start that was cut off can leave behind before config.toml, which is written last."""


def refuse_strangers(run_dir: str) -> None:
    """Raises CheckpointError for a folder that holds something and is no run."""
    names = set(files.names(run_dir)) - OWN
    if names and "config.toml" not in names:
        raise CheckpointError(
            f"{run_dir} is not a run folder: it has {', '.join(sorted(names)[:3])} but no "
            "config.toml; choose another --out"
        )


def open_run(
    run_dir: str,
    config: Config,
    facts: Mapping[str, Any],
    vocabulary_files: Mapping[str, bytes],
    *,
    allow_change: tuple[str, ...] = (),
) -> list[str]:
    """Makes the folder's record, or checks that the run in it is this one.

    `facts` are plain JSON; `vocabulary_files` go to vocabulary/. Returns lines to tell: what
    changed since the run began and may change.

    Raises CheckpointError (another model), ConfigError (another
    config, with the difference), DataError (another vocabulary or data order), StorageError.
    """
    config_path = files.join(run_dir, "config.toml")
    record_path = files.join(run_dir, "record.json")
    told: list[str] = []
    old = files.read(config_path)
    if old is not None:
        told += configfile.same_run(configfile.load(config_path), config, allow_change)
        told += _same_facts(record_path, facts, allow_change)
    else:
        for name, data in vocabulary_files.items():
            files.write(files.join(run_dir, "vocabulary", name), data)
    record = {"config": configfile.digest(config), **facts}
    files.write(record_path, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
    files.write(config_path, configfile.dumps(config).encode())
    return told


def _same_facts(path: str, facts: Mapping[str, Any], allow_change: tuple[str, ...]) -> list[str]:
    data = files.read(path)
    if data is None:
        return []
    old = json.loads(data)
    told = []
    for name, value in facts.items():
        if name not in old or old[name] == value:
            continue
        may_change = name not in FIXED or "data" in allow_change
        if not may_change:
            raise DataError(
                f"{path}: the run was started with another {name.replace('_', ' ')} "
                f"({str(old[name])[:16]}, now {str(value)[:16]}): use the data and package "
                "versions it was started with, or another --out"
            )
        if isinstance(value, Mapping) and isinstance(old[name], Mapping):
            changed = [
                f"{name}.{key} = {value.get(key)} (was {old[name].get(key)})"
                for key in sorted(set(value) | set(old[name]))
                if value.get(key) != old[name].get(key)
            ]
            told += changed
        else:
            told.append(f"{name} = {value} (was {old[name]})")
    return told
