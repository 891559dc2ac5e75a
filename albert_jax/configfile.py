"""Reads, writes and compares configs in TOML: presets, those of run folders, files of others.

The size and nesting of a file are checked before it is parsed. `extends` names another preset or
file: tables are merged key by key, but `phases` replace the phases of the file that is extended.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from albert_jax import files
from albert_jax.config import Config
from albert_jax.config_builder import build, from_dict
from albert_jax.config_fields import leaves
from albert_jax.errors import (
    CheckpointError,
    ConfigError,
    OtherVersionError,
    StorageError,
    nearest,
)
from albert_jax.version import __version__

MAX_BYTES = 100_000
MAX_DEPTH = 32
_MAX_EXTENDS = 8
FREE_TO_CHANGE = ("run.", "compute.", "parallel.", "data.workers", "data.on_damage")
"""Fields that may differ when a run is continued."""
_PATHS = {
    "data": ("prepared",),
    "run": ("minimal_pairs",),
    "task": ("train", "dev", "teacher", "augment_from"),
}
"""Fields of each section that name files or folders."""
PATH_FIELDS = tuple(f"{section}.{name}" for section, names in _PATHS.items() for name in names)
"""The same as paths of fields. What lies there may be moved, so it is known by its digests."""


def preset_folder() -> Path:
    """Folder of the presets: beside the modules when installed, in configs/ of a checkout."""
    here = Path(__file__).resolve().parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def presets() -> list[str]:
    """Names of all presets, sorted; those of fine-tuning begin with "finetune/"."""
    folder = preset_folder()
    paths = folder.rglob("*.toml")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths)


def load(name: str) -> Config:
    """The validated config of a preset (`tiny`), a TOML file, or a run folder (also in a bucket).

    Raises ConfigError (exit code 2) for a file that is missing, too large, not TOML, or not a
    config: an unknown key, a wrong type, or a value outside its range.
    """
    try:
        return from_dict(_merged(name, ()), name)
    except ConfigError as error:
        written_by = _version_of_run(name)
        if written_by in ("", __version__):
            raise
        raise OtherVersionError(
            f"{error}; use albert-jax {written_by}, which began this run, not {__version__}"
        ) from None


def _version_of_run(name: str) -> str:
    """The version that began the run to which a config belongs; "" if there is none."""
    folder = os.path.dirname(name) if name.endswith(".toml") else name
    try:
        record = json.loads(files.read(files.join(folder or ".", "record.json")) or b"{}")
        return str(record["environment"]["packages"]["albert-jax"])
    except (ValueError, KeyError, TypeError, RecursionError, StorageError):
        return ""


def loads(text: str, where: str) -> Config:
    """The config that `dumps` wrote, with all fields and no `extends`; raises ConfigError."""
    return from_dict(_parsed(text.encode(), where), where)


def base_of(name: str) -> tuple[str, Config]:
    """(name, config) that differences of `name` are counted from.

    A preset is compared with itself, a file with what it extends, and others with the defaults.
    """
    if name in presets():
        return name, load(name)
    path = _find(name, "")
    base = _tables(path).get("extends")
    return (base, from_dict(_merged(base, (path,)), base)) if base else ("defaults", Config())


def with_fields(config: Config, fields: Mapping[str, Any]) -> Config:
    """The config with other values of some fields, such as {"optimizer.learning_rate": 1e-3}.

    Raises ConfigError for an unknown field, or a value that it cannot have.
    """
    tables = to_dict(config)
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
    return from_dict(tables, "fields")


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain values of all fields; TOML has no null, so a task that is None is absent."""
    raw = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    return {name: value for name, value in raw.items() if value is not None}


def dumps(config: Config) -> str:
    """Complete TOML that `load` reads back to an equal config."""
    import tomli_w  # Imported here, because only writing needs it.

    return tomli_w.dumps(to_dict(config))


def with_absolute_paths(config: Config) -> Config:
    """The config with absolute paths of the files and folders that it names and that exist.

    So a run finds its data from every working directory. Names of data sets stay as they are.
    """
    return _with_paths(config, files.absolute)


def without_folders(config: Config) -> Config:
    """The config with the mere names of local files and folders, for whoever it is published to."""
    return _with_paths(config, lambda path: os.path.basename(path) if os.path.isabs(path) else path)


def _with_paths(config: Config, change: Callable[[str], str]) -> Config:
    tables = to_dict(config)
    for section, names in _PATHS.items():
        for name in names:
            value = tables.get(section, {}).get(name)
            if isinstance(value, list):
                tables[section][name] = [change(path) for path in value]
            elif value:
                tables[section][name] = change(value)
    return build(Config, tables, "the config", "")


def digest(config: Config) -> str:
    """SHA-256 (hex) of all fields: the same for equal configs, whatever file they came from."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def difference(config: Config, preset: Config) -> list[str]:
    """One line per field that differs: `optimizer.learning_rate = 0.001 (was 0.005)`."""
    return list(_changes(preset, config).values())


def check_may_continue(old: Config, new: Config, allow_change: tuple[str, ...] = ()) -> list[str]:
    """Checks that a run made with `old` may go on with `new`; returns the changes to log.

    `allow_change` names fields or sections that may change besides FREE_TO_CHANGE. Raises
    CheckpointError for another model and ConfigError for other changes.
    """
    known = [path for config in (old, new) for path, _ in leaves(config)]
    for name in allow_change:
        if not any(_inside(path, name) for path in known):
            raise ConfigError(f"--allow-change {name}: no such field{nearest(name, known)}")
    changes, wrong = _changes(old, new), _forbidden(old, new, allow_change)
    model = [line for path, line in wrong.items() if path.startswith("model.")]
    if model:
        raise CheckpointError(
            f"this run folder belongs to another model: {_brief(model)}: use another --out"
        )
    if wrong:
        raise ConfigError(
            f"this run folder belongs to another config: {_brief(list(wrong.values()))}: use "
            f"another --out, or --allow-change {' '.join(list(wrong)[:3])}"
        )
    return list(changes.values())


def forbidden_changes(old: Config, new: Config, allow_change: tuple[str, ...] = ()) -> list[str]:
    """The changes that a run may not go through, one phrase per field; see `check_may_continue`."""
    return list(_forbidden(old, new, allow_change).values())


def _forbidden(old: Config, new: Config, allow_change: tuple[str, ...]) -> dict[str, str]:
    return {
        path: line
        for path, line in _changes(old, new).items()
        if path.startswith("model.")
        or not (path.startswith(FREE_TO_CHANGE) or any(_inside(path, n) for n in allow_change))
    }


def _find(name: str, extended_by: str) -> str:
    """Path of a preset, of a file (relative to the file that extends it) or in a run folder."""
    if name in presets():
        return str(preset_folder() / f"{name}.toml")
    if files.is_bucket(extended_by) and not files.is_bucket(name):
        name = files.join(extended_by.rpartition("/")[0], name)
    if files.is_bucket(name):
        return name if name.endswith(".toml") else files.join(name, "config.toml")
    path = os.path.expanduser(name)
    if extended_by:
        path = os.path.join(os.path.dirname(extended_by), path)
    if os.path.isdir(path):
        path = os.path.join(path, "config.toml")
    if os.path.isfile(path):
        return os.path.realpath(path)
    by = f" (extended by {extended_by})" if extended_by else ""
    raise ConfigError(
        f"config {name!r}{by} does not exist: it is not a preset, not a file and not a run folder"
        f"{nearest(Path(name).stem, presets())}; presets: {', '.join(presets())}"
    )


def _tables(path: str) -> dict[str, Any]:
    return _parsed(_read(path), path)


def _parsed(data: bytes, path: str) -> dict[str, Any]:
    """Parses TOML after checking that doing so is cheap."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"config {path} is larger than {MAX_BYTES} bytes: it is not a config")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"config {path} is not UTF-8 at byte {error.start}: save it as UTF-8"
        ) from None
    code = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    steps = [1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", code)]
    depth = max(itertools.accumulate(steps), default=0)
    # A dotted key is nesting too, and the parser needs quadratic time for a long one.
    dots = max(part.count(".") for part in re.split(r"[,\n]", code))
    if max(depth, dots) > MAX_DEPTH:
        raise ConfigError(f"config {path} is nested deeper than {MAX_DEPTH}: flatten it")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # A long message may quote the file; its beginning tells enough.
        reason = str(error) if len(str(error)) < 120 else "cannot be parsed"
        raise ConfigError(f"config {path} is not TOML: {reason}") from None


def _read(path: str) -> bytes:
    if files.is_bucket(path):
        data = files.read(path)
        if data is None:
            raise ConfigError(f"config {path} does not exist: give a TOML file or a run folder")
        return data
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from None


def _merged(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """The tables of a file over those of the files it extends, checked after each."""
    path = _find(name, seen[-1] if seen else "")
    if path in seen or len(seen) >= _MAX_EXTENDS:
        raise ConfigError(
            f"config {path}: extends forms a cycle or too long a chain: {', '.join(seen)}"
        )
    tables = _tables(path)
    base = tables.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"config {path}: extends must be the name of a preset or file")
    if base is not None:
        tables = _overlay(_merged(base, (*seen, path)), tables)
    build(Config, tables, path, "")  # The task that decides its fields may be named below.
    return tables


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _overlay(base[key], value) if both else value
    return merged


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
