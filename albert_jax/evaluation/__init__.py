"""Measuring a model: held-out losses beside references, and the official scores of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EVALUATION_NAME = "evaluation.json"
"""The file in a run folder with the last result of `albert-jax evaluate`."""


def columns(report: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The scores in that file by the headings of a table: "2 layers", "majority"."""
    found = {f"{one['num_layers']} layers": one["scores"] for one in report["results"]}
    return found | ({"majority": report["majority"]} if "majority" in report else {})
