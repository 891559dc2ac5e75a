"""Fields of nested JSON that must be present and of one type."""

from __future__ import annotations

from typing import Any

from albert_jax.errors import DataError

_NAMES = {str: "a text", int: "a whole number", list: "a list"}


def require(holder: Any, name: str, where: str, kind: type = object) -> Any:
    """The value of a key; DataError, which names `where`, if it is missing or of another type."""
    if not isinstance(holder, dict) or name not in holder:
        raise DataError(f"{where}: no {name!r}; add it")
    value = holder[name]
    if not isinstance(value, kind):
        raise DataError(f"{where}: {name} is {str(value)[:60]!r}, not {_NAMES[kind]}; fix it")
    return value
