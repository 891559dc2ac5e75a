"""The report beside each conversion: every tensor under both names, and how far it moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.files.json_files import json_bytes
from albert_jax.files.new_folder import write_files

_SLICE = 1 << 20
"""Values that are compared at a time."""


@dataclass(frozen=True)
class Row:
    """One tensor of the foreign format."""

    name: str
    shape: tuple[int, ...]
    stored_as: str
    max_difference: float


def compare(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> list[Row]:
    """What was read back against what was meant, one tensor at a time (neither is copied whole)."""
    rows = []
    for name in sorted(expected):
        found = np.asarray(stored[name])
        rows.append(Row(name, found.shape, str(found.dtype), _difference(expected[name], found)))
    return rows


def _difference(a: Any, b: np.ndarray) -> float:
    a = np.asarray(a)
    if a.shape != b.shape:
        return float("inf")
    worst = 0.0
    # In slices: two large tensors in float64 would double the memory of the whole conversion.
    for part_a, part_b in _slices(a, b):
        delta = np.abs(part_a.astype(np.float64) - part_b.astype(np.float64))
        worst = max(worst, float(delta.max(initial=0.0)))
    return worst


def _slices(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if a.size <= _SLICE:
        yield a, b
        return
    rows = _SLICE * len(a) // a.size
    if not rows:  # one parameter set, say, whose leading axis is 1
        for one_a, one_b in zip(a, b, strict=True):
            yield from _slices(one_a, one_b)
        return
    for start in range(0, len(a), rows):
        yield a[start : start + rows], b[start : start + rows]


def worst(rows: list[Row]) -> float:
    """The largest difference of any tensor."""
    return max((row.max_difference for row in rows), default=0.0)


def write(
    folder: Path, rows: list[Row], *, ours: Mapping[str, Any], theirs: Mapping[str, Any], notes: str
) -> None:
    """conversion.json and conversion.txt; no times and no paths, so equal conversions are equal."""
    content = {
        "notes": notes,
        "max_difference": worst(rows),
        "our_config": dict(ours),
        "their_config": dict(theirs),
        "tensors": [asdict(row) for row in rows],
    }
    write_files(
        folder, {"conversion.json": json_bytes(content), "conversion.txt": table(rows, notes)}
    )


def table(rows: list[Row], notes: str) -> bytes:
    """The same for people."""
    width = max((len(row.name) for row in rows), default=4)
    lines = [notes, "", f"{'tensor':<{width}}  {'shape':<16} {'stored as':<9} max difference"]
    for row in rows:
        shape = "x".join(map(str, row.shape))
        lines.append(
            f"{row.name:<{width}}  {shape:<16} {row.stored_as:<9} {row.max_difference:.3g}"
        )
    lines.append(f"{len(rows)} tensors, largest difference {worst(rows):.3g}")
    return ("\n".join(lines) + "\n").encode()
