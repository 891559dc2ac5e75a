"""JSON: read within limits where it comes from others, written so that equal values are equal."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

from albert_jax.errors import CheckpointError
from albert_jax.files import storage_errors

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object and was written by another program.

    Raises:
      CheckpointError: The file is absent, larger than 1 MB, nested deeper than 32 levels, not
        JSON, not an object, or has NaN, Infinity or a repeated key.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file: give the folder that holds it")
    with storage_errors(str(path)):
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(
                f"{path} is larger than {MAX_BYTES} bytes: it is not a file of this kind"
            )
        data = path.read_bytes()
    if _max_depth(data) > MAX_DEPTH:
        raise CheckpointError(
            f"{path} is nested deeper than {MAX_DEPTH} levels: it is not a file of this kind"
        )
    try:
        value = json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    return value


def _max_depth(data: bytes) -> int:
    """An upper bound of the nesting (brackets inside strings count too)."""
    steps = ((byte in b"[{") - (byte in b"]}") for byte in data)
    return max(accumulate(steps), default=0)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Argument of json.loads that refuses an object with a repeated key."""
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value


def _no_constant(text: str) -> None:
    """Argument of json.loads that refuses NaN and Infinity, which Python would accept."""
    raise ValueError(f"{text} is not JSON")


def json_bytes(value: Any) -> bytes:
    """Sorted, indented JSON that ends in a line feed: equal values are equal bytes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()
