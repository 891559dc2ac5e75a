"""Builds a config from the plain tables of a TOML file.

Every key must exist (otherwise the nearest name is suggested), and every value must have the type
of its field. The section `task` has the fields of the task that it names. Values that look like
secrets are refused, because configs are copied around.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any, Literal

from albert_jax.config import Config
from albert_jax.errors import ConfigError, nearest
from albert_jax.tasks import registry

_SECRET_VALUE = re.compile(
    r"-----BEGIN|\b((hf_|ghp_|gho_|xox[a-z]-)[A-Za-z0-9]{20}|glpat-[\w-]{20})|\bgithub_pat_\w{30}|\bAKIA[0-9A-Z]{16}"
    r"|(token|secret|password|key|signature)=[^&\s]{8}|://[^/@\s]+:[^/@\s]+@",
    re.I,
)
_NAMES = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a string",
    dict: "a table", list: "a list",
}  # fmt: skip
DEFAULT_TASK = "classification"
"""The task of a config that has a section `task` without a name."""


def from_dict(raw: dict[str, Any], where: str) -> Config:
    """Builds and validates a Config from nested plain values; `where` stands in messages."""
    config = build(Config, raw, where, "")
    try:
        config.validate()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def with_task(config: Config, name: str | None) -> Config:
    """The config with the settings of another task, which keep what both tasks have.

    Without a name the config keeps its task, or gets the default one. Raises ConfigError for an
    unknown name.
    """
    old = config.task
    name = name or (old.name if old is not None else DEFAULT_TASK)
    kind = registry.get(name).config_class
    if old is not None and type(old) is kind:
        return config
    default = {} if old is None else dataclasses.asdict(type(old)())
    known = {field.name for field in dataclasses.fields(kind)} - {"name"}
    kept = {k: getattr(old, k) for k in default if k in known and getattr(old, k) != default[k]}
    return dataclasses.replace(config, task=kind(**kept))


def build(kind: type, raw: Any, where: str, path: str) -> Any:
    """An instance of a config dataclass from a table; missing keys take their default."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: {path or 'the file'} must be a table, not {_kind(raw)}")
    hints = typing.get_type_hints(kind)
    for key in raw:
        full = f"{path}.{key}" if path else key
        if key in hints:
            continue
        hint = nearest(key, hints) or f"; known: {', '.join(hints)}"
        raise ConfigError(f"{where}: unknown key {full[:80]!r}{hint}")
    values = {
        key: _value(hints[key], value, where, f"{path}.{key}" if path else key)
        for key, value in raw.items()
    }
    return kind(**values)


def _task_class(raw: Any, where: str) -> type:
    """The settings class of the task that a table names."""
    name = raw.get("name", DEFAULT_TASK) if isinstance(raw, dict) else DEFAULT_TASK
    try:
        return registry.get(str(name)).config_class
    except ConfigError as error:
        raise ConfigError(f"{where}: task.name: {error}") from None


def _value(hint: Any, raw: Any, where: str, path: str) -> Any:
    """`raw` as the type of its field; ConfigError names file, field and expected type."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), raw, where, path)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # Only the task is optional.
        return build(_task_class(raw, where), raw, where, path)
    if origin is tuple:
        if not isinstance(raw, list):
            raise ConfigError(f"{where}: {path} must be a list, not {_kind(raw)}")
        return tuple(_value(arguments[0], v, where, f"{path}.{i}") for i, v in enumerate(raw))
    if origin is Literal:
        if not any(raw == a and type(raw) is type(a) for a in arguments):
            choices = ", ".join(repr(a) for a in arguments)
            raise ConfigError(f"{where}: {path} must be one of {choices}")
        return raw
    if type(raw) is int and abs(raw) > 2**63:
        raise ConfigError(f"{where}: {path} is beyond 64 bits: give a smaller number")
    if hint is float and type(raw) is int:
        return float(raw)
    if type(raw) is not hint:
        raise ConfigError(f"{where}: {path} must be {_NAMES[hint]}, not {_kind(raw)}")
    if isinstance(raw, str) and _SECRET_VALUE.search(raw):
        raise ConfigError(f"{where}: the value of {path} looks like a secret: remove it")
    return raw


def _kind(raw: Any) -> str:
    return _NAMES.get(type(raw), f"a {type(raw).__name__}")
