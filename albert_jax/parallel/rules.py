"""The one table of the mesh axes that split each parameter."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax.tree import path_of

TENSOR_RULES: tuple[tuple[str, int], ...] = (
    (r"encoder/attention/(query|key|value)/(kernel|bias)", -1),
    (r"encoder/attention/output/kernel", -2),
    (r"encoder/ffn/intermediate/(kernel|bias)", -1),
    (r"encoder/ffn/output/kernel", -2),
)
"""Path pattern and the dimension that the tensor axis splits: heads and the FFN's width."""


def parameter_spec(path: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """The sharding of the parameter at `path` on a mesh with these axis sizes.

    The tensor axis splits the dimension of the table where it divides. The fsdp axis splits the
    largest other dimension that divides (the first of equals). A parameter that divides nowhere is
    replicated; that is never an error.
    """
    axes: list[str | None] = [None] * len(shape)
    for pattern, dimension in TENSOR_RULES:
        if sizes["tensor"] > 1 and re.fullmatch(pattern, path):
            if shape[dimension] % sizes["tensor"] == 0:
                axes[dimension] = "tensor"
    usable = [i for i, size in enumerate(shape) if axes[i] is None and size % sizes["fsdp"] == 0]
    if sizes["fsdp"] > 1 and usable:
        axes[max(usable, key=lambda i: shape[i])] = "fsdp"
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def parameter_specs(params: Any, mesh: Mesh) -> Any:
    """A PartitionSpec for every leaf of a tree of arrays or shapes."""
    sizes = dict(mesh.shape)
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: parameter_spec(path_of(keys), tuple(leaf.shape), sizes), params
    )


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), parameter_specs(params, mesh))


def fsdp_dimension(spec: PartitionSpec) -> int | None:
    """The dimension that the fsdp axis splits, if any."""
    return next((i for i, axis in enumerate(spec) if axis == "fsdp"), None)


def unsharded(params: Any, sizes: Mapping[str, int]) -> dict[str, int]:
    """Path and bytes of each parameter that is not split by fsdp under these axis sizes."""
    return {
        path_of(keys): math.prod(leaf.shape) * leaf.dtype.itemsize
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
        if fsdp_dimension(parameter_spec(path_of(keys), tuple(leaf.shape), sizes)) is None
    }
