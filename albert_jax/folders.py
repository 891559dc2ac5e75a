"""Folders that appear whole or not at all, and the JSON of others read with limits."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.files import is_bucket, storage_errors

JSON_LIMIT = 1 << 20
_DEPTH = 32


@contextmanager
def appearing(out_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `out_dir` that takes its name when the block ends well.

    Raises CheckpointError if `out_dir` exists: nothing is ever overwritten.
    """
    if is_bucket(str(out_dir)):
        raise ConfigError(f"{out_dir}: give a local folder and copy it to the bucket afterwards")
    out = Path(os.path.abspath(out_dir))
    if os.path.lexists(out):
        raise CheckpointError(f"{out_dir} exists already: choose another name or remove it first")
    staged = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        with storage_errors(str(out_dir)):
            out.parent.mkdir(parents=True, exist_ok=True)
            staged.mkdir()
            yield staged
            for path in sorted(staged.rglob("*")):
                if path.is_file():
                    _sync(path)
            os.rename(staged, out)
            _sync(out.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Writes small files, by their path, into a folder that is still being made."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of others.

    Raises CheckpointError: absent, larger than 1 MB, nested deeper than 32, not JSON, NaN or
    Infinity, a key given twice, or no object.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file: give the folder that holds it")
    with storage_errors(str(path)):
        if path.stat().st_size > JSON_LIMIT:
            raise CheckpointError(f"{path} is larger than {JSON_LIMIT} bytes: it is no config")
        data = path.read_bytes()
    if max_depth(data) > _DEPTH:
        raise CheckpointError(f"{path} is nested deeper than {_DEPTH} levels: it is no config")
    try:
        value = json.loads(data, object_pairs_hook=unique_keys, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    return value


def max_depth(data: bytes) -> int:
    """An upper bound of the nesting of JSON bytes (brackets inside strings count too)."""
    depth = deepest = 0
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: refuses an object in which a key stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def no_constant(text: str) -> None:
    """For json.loads: refuses NaN and Infinity, which Python would accept."""
    raise ValueError(f"{text} is not JSON")


def json_bytes(value: Any) -> bytes:
    """Sorted, indented JSON that ends in a line feed: equal values are equal bytes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
