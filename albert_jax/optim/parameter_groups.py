"""Which parameter gets which rule, decided by name and never by rank.

Leaves of the encoder are stacked [n, ...]: axis 0 lists n parameters of the unstacked model.
"""

from __future__ import annotations

from typing import Any

import jax


def path_of(keys: tuple[Any, ...]) -> str:
    """The path "a/b/c" of a leaf in a nested or flat dict."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def excluded(path: str) -> bool:
    """Biases and LayerNorm parameters: neither decay nor trust ratio (lamb_optimizer.py)."""
    parts = path.split("/")
    return parts[-1] == "bias" or "layer_norm" in parts


def stacked(path: str) -> bool:
    """Whether axis 0 of the leaf is a list of parameters of the unstacked model."""
    return "encoder" in path.split("/")
