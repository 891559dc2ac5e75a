"""Parameter trees as flat tables: nested dicts of arrays to ``{"a/b/c": array}`` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """All leaves of a nested dict by their path, joined with "/", in the dict's own order."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose leaves have these paths."""
    return traverse_util.unflatten_dict(flat, sep="/")


def path_of(keys: tuple[Any, ...]) -> str:
    """The path "a/b/c" of a leaf, from the keys that jax.tree's functions with paths give."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
