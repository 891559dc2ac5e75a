"""Parameter trees as flat tables: nested dicts of arrays to ``{"a/b/c": array}`` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All leaves of a nested dict by their path, joined with "/", in the dict's own order."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{name}/"))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose leaves have these paths; ValueError for a leaf that is a branch too."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *branches, leaf = path.split("/")
        node = tree
        for name in branches:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ValueError(f"path {path!r} passes through a leaf")
        if leaf in node:
            raise ValueError(f"path {path!r} is a branch too")
        node[leaf] = value
    return tree


def path_of(keys: tuple[Any, ...]) -> str:
    """The path "a/b/c" of a leaf, from the keys that jax.tree's functions with paths give."""
    import jax

    return jax.tree_util.keystr(keys, simple=True, separator="/")
