"""Fields of config dataclasses: their bounds, and the list of all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from albert_jax.errors import ConfigError


def bounded(default: Any, low: float, high: float = math.inf) -> Any:
    """A number field whose value must lie between `low` and `high`, both included."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


def leaves(config: object) -> list[tuple[str, object]]:
    """All (dotted path, value) pairs of a config in the order of its fields, except None."""
    return [(path, value) for path, value, _ in _fields(config, "") if value is not None]


def _fields(config: object, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Path, value and dataclass field of every leaf of a config."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _fields(value, path + ".")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, item in enumerate(value):
                yield from _fields(item, f"{path}.{i}.")
        else:
            yield path, value, field


def check_bounds(config: object) -> None:
    """Raises ConfigError for a number that is not finite or outside the bounds of its field."""
    for path, value, field in _fields(config, ""):
        if not _is_finite(value):
            raise ConfigError(f"{path} is {value}: give a finite number")
        if "bounds" in field.metadata:
            check_within(path, value, *field.metadata["bounds"])


def _is_finite(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(math.isfinite(number) for number in numbers if isinstance(number, float))


def check_within(path: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError if the field `path` lies outside its bounds."""
    if not low <= value <= high:
        rule = f"be at least {low}" if high == math.inf else f"lie between {low} and {high}"
        raise ConfigError(f"{path} is {value}: it must {rule}")
