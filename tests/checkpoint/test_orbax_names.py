"""What of Orbax we use stands in one file, and a version of Orbax that lacks a part is named."""

from __future__ import annotations

import ast
import configparser
from importlib import metadata
from pathlib import Path

import albert_jax
from albert_jax.checkpoint import orbax_store

ROOT = Path(albert_jax.__file__).resolve().parent
STORE = Path(orbax_store.__file__)


def _names(source: str) -> dict[str, int]:
    """Dotted names under `ocp`, with the line of the first use."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id == "ocp":
            found.setdefault(".".join(reversed(parts)), node.lineno)  # type: ignore[attr-defined]
    return found


def _lacking(module: object, names: dict[str, int]) -> list[str]:
    """The names that a module does not have, with their lines."""
    lacking = []
    for name, line in names.items():
        value = module
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None:
            lacking.append(f"ocp.{name} ({STORE.name}:{line})")
    return lacking


def test_the_names_exist_in_the_installed_orbax() -> None:
    names = _names(STORE.read_text())
    assert {"CheckpointManager", "args.PyTreeSave", "ArrayRestoreArgs"} <= names.keys()
    version = metadata.version("orbax-checkpoint")
    lacking = _lacking(orbax_store.ocp, names)
    assert not lacking, f"orbax-checkpoint {version} has no {', '.join(lacking)}"
    assert _lacking(object(), {"args.JsonSave": 7}) == ["ocp.args.JsonSave (orbax_store.py:7)"]


def test_no_other_file_imports_orbax() -> None:
    files = [path for path in ROOT.rglob("*.py") if "import orbax" in path.read_text()]
    assert files == [STORE]


def test_the_release_that_renames_them_is_excluded() -> None:
    # orbax-checkpoint 1.0 puts the interface called v1 in the place of these names.
    setup = configparser.ConfigParser()
    setup.read(ROOT.parent / "setup.cfg")
    wanted = setup["options"]["install_requires"].splitlines()
    line = next(line for line in wanted if line.startswith("orbax-checkpoint"))
    assert line.split("<")[1].strip().startswith("0."), line
