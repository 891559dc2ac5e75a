"""The config of a fine-tuning run, from what the command line or Python gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from albert_jax import config_builder, configfile
from albert_jax.config import Config
from albert_jax.config_fields import leaves
from albert_jax.errors import ConfigError


def defaults(name: str | None, init: str | None, task: str | None) -> tuple[Config, set[str]]:
    """The config of a name under a task, and the paths of the fields that a file sets by itself.

    Without a name it is a preset: finetune/default, or finetune/scratch without weights in `init`.
    What a preset says of the length of rows is adapted to the weights, but not what stands in a
    file of the user's own.
    """
    name = name or ("finetune/default" if init else "finetune/scratch")
    config = config_builder.with_task(configfile.load(name), task)
    base = config_builder.with_task(configfile.base_of(name)[1], task)
    return config, {path for path, _ in set(leaves(config)) - set(leaves(base))}


def with_files(
    config: Config,
    *,
    train: str | None,
    dev: str | None,
    teacher: str | None,
    columns: Sequence[str] | None,
) -> Config:
    """The config with those settings of its task that are given (not None).

    Raises ConfigError for one that the task does not have.
    """
    task = config.task
    assert task is not None
    changes: dict[str, Any] = {"train": train, "dev": dev, "teacher": teacher}
    changes["columns"] = None if columns is None else tuple(columns)
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in changes:
        if not hasattr(task, name):
            raise ConfigError(f"--{name}: {task.name} has no such setting; leave it out")
    return dataclasses.replace(config, task=dataclasses.replace(task, **changes))


def with_fields(config: Config, fields: Mapping[str, Any]) -> Config:
    """The config with other values of some fields, such as {"optimizer.learning_rate": 1e-3}.

    Raises ConfigError for an unknown field, or a value that it cannot have.
    """
    tables = configfile.to_dict(config)
    for path, value in fields.items():
        *parents, last = path.replace("-", "_").split(".")
        table: Any = tables
        for parent in parents:
            if isinstance(table, list):
                table = table[int(parent)] if parent in map(str, range(len(table))) else None
            else:
                table = table.get(parent)
            if not isinstance(table, dict | list):
                raise ConfigError(f"fields: no section {parent!r} for {path!r}: see the config")
        if not isinstance(table, dict):
            raise ConfigError(f"fields: {path!r} has no name: give one such as phases.0.steps")
        table[last] = list(value) if isinstance(value, tuple) else value
    return config_builder.from_dict(tables, "fields")
