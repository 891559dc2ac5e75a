"""Compares configs: what differs, and whether a run may continue with another config."""

from __future__ import annotations

import json

from albert_jax.config import Config
from albert_jax.config_fields import leaves
from albert_jax.configfile import nearest
from albert_jax.errors import CheckpointError, ConfigError

FREE_TO_CHANGE = ("run.", "compute.", "parallel.", "data.workers")
"""Fields that may differ when a run is continued."""


def difference(config: Config, preset: Config) -> list[str]:
    """One line per field that differs: `optimizer.learning_rate = 0.001 (was 0.005)`."""
    return list(_changes(preset, config).values())


def same_run(old: Config, new: Config, allow_change: tuple[str, ...] = ()) -> list[str]:
    """Checks that a run made with `old` may go on with `new`; returns the changes to log.

    Fields of run, compute and parallel and data.workers may always change. Fields of the model
    never. Any other needs its name, or the name of its section, in `allow_change`. Raises
    CheckpointError (model), ConfigError (the rest), each with the difference.
    """
    known = [path for config in (old, new) for path, _ in leaves(config)]
    for name in allow_change:
        if not any(_inside(path, name) for path in known):
            raise ConfigError(f"--allow-change {name}: no such field{nearest(name, known)}")
    changes = _changes(old, new)
    model = [line for path, line in changes.items() if path.startswith("model.")]
    if model:
        raise CheckpointError(
            f"this run folder belongs to another model: {_brief(model)}: use another --out"
        )
    refused = {
        path: line
        for path, line in changes.items()
        if not path.startswith(FREE_TO_CHANGE) and not any(_inside(path, n) for n in allow_change)
    }
    if refused:
        raise ConfigError(
            f"this run folder belongs to another config: {_brief(list(refused.values()))}: use "
            f"another --out, or --allow-change {' '.join(list(refused)[:3])}"
        )
    return list(changes.values())


def _changes(old: Config, new: Config) -> dict[str, str]:
    before, after = dict(leaves(old)), dict(leaves(new))
    changed = {}
    for path in dict.fromkeys([*before, *after]):
        if path not in after:
            changed[path] = f"{path} is gone (was {json.dumps(before[path])})"
        elif before.get(path) != after[path]:
            changed[path] = (
                f"{path} = {json.dumps(after[path])} (was {json.dumps(before.get(path))})"
            )
    return changed


def _brief(lines: list[str]) -> str:
    more = f"; and {len(lines) - 6} more" if len(lines) > 6 else ""
    return "; ".join(lines[:6]) + more


def _inside(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")
