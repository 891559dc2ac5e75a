"""Folders with reference data of other programs, which environment variables name."""

from __future__ import annotations

import os
from pathlib import Path

NO_GOLDEN = "neither ALBERT_JAX_GOLDEN nor ALBERT_JAX_SHARED is set"
NO_SHARED = "ALBERT_JAX_SHARED is not set"


def shared_folder() -> Path | None:
    """Text, vocabularies and tasks (ALBERT_JAX_SHARED)."""
    return _named("ALBERT_JAX_SHARED")


def golden_folder() -> Path | None:
    """Outputs of the original program: ALBERT_JAX_GOLDEN, else those in the shared folder."""
    shared = shared_folder()
    return _named("ALBERT_JAX_GOLDEN") or (shared and shared / "golden" / "original")


def golden_cases(pattern: str) -> list[Path]:
    """Sorted paths in the golden folder that match; none without the folder."""
    folder = golden_folder()
    return sorted(folder.glob(pattern)) if folder else []


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None
