"""The report beside each conversion: every foreign tensor, and how far its values moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.files.json_files import json_bytes
from albert_jax.files.new_folder import write_files
from albert_jax.model_io.safetensors_files import chunks

REPORT_NAME = "conversion.json"


@dataclass(frozen=True)
class Row:
    """One stored tensor."""

    name: str
    shape: tuple[int, ...]
    stored_as: str
    max_difference: float


def compare(expected: Mapping[str, Any], stored: Mapping[str, Any]) -> list[Row]:
    """Compares stored tensors with expected ones, one at a time; neither is copied whole."""
    rows = []
    for name in sorted(expected):
        tensor = np.asarray(stored[name])
        difference = _difference(np.asarray(expected[name]), tensor)
        rows.append(Row(name, tensor.shape, str(tensor.dtype), difference))
    return rows


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    # In chunks, because float64 copies of large tensors would double the memory of a conversion.
    return max(
        float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max(initial=0.0))
        for x, y in zip(chunks(a), chunks(b), strict=True)
    )


def summary(rows: list[Row]) -> str:
    """Number of tensors and largest difference, for the line that a verb prints."""
    return f"{len(rows)} tensors, largest difference {largest_difference(rows):.3g}"


def largest_difference(rows: list[Row]) -> float:
    """The largest difference of any tensor."""
    return max((row.max_difference for row in rows), default=0.0)


def write(
    folder: Path, rows: list[Row], *, ours: Any, theirs: Mapping[str, Any], notes: str
) -> None:
    """Writes the report with both configs. It has no times and no paths, so that equal
    conversions give equal bytes."""
    report = {
        "notes": notes,
        "max_difference": largest_difference(rows),
        "our_config": asdict(ours),
        "their_config": dict(theirs),
        "tensors": [asdict(row) for row in rows],
    }
    write_files(folder, {REPORT_NAME: json_bytes(report)})
