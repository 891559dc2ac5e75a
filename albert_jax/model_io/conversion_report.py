"""The report beside each conversion: how far the stored values differ from the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.files.json_files import json_bytes
from albert_jax.files.new_folder import write_files
from albert_jax.model_io.safetensors_files import Tensors

REPORT_NAME = "conversion.json"


def write(folder: Path, weights_name: str, expected: Mapping[str, Any]) -> str:
    """Compares a written safetensors file with the tensors that were meant, one at a time.

    Writes the report and returns a summary. The report has no times and no paths, so that equal
    conversions give equal bytes.
    """
    stored, differences = Tensors(folder / weights_name), {}
    for name in sorted(expected):
        difference = stored[name].astype(np.float32) - np.asarray(expected[name])
        differences[name] = float(np.abs(difference).max(initial=0.0))
    largest = max(differences.values())
    report = {"max_difference": largest, "tensors": differences}
    write_files(folder, {REPORT_NAME: json_bytes(report)})
    return f"{len(differences)} tensors, largest difference {largest:.3g}"
