"""ALBERT's parameter sharing: which parameter set each block of the encoder uses.

A block is one application of an attention and of a feed-forward sublayer. A layer consists of
`inner_group_num` blocks, usually one, and the blocks of all layers are numbered consecutively.
The parameters of each kind of sublayer are stored as sets: every leaf is [sets, ...].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from albert_jax.config import MAX_LAYERS, ModelConfig
from albert_jax.errors import ConfigError

Params = Mapping[str, Any]
"""Nested dict of arrays."""


class Sharing(NamedTuple):
    """For each block, the number of the parameter set that its sublayers use."""

    attention: tuple[int, ...]
    ffn: tuple[int, ...]


def check_depth(config: ModelConfig, num_layers: int) -> None:
    """Raises ConfigError for a number of layers that the model does not have.

    Shared sublayers can be applied any number of times. Sublayers with a set per block exist only
    up to the config's depth.
    """
    limit, name = MAX_LAYERS, "the most of any model"
    if config.sharing != "all":
        limit, name = config.num_hidden_layers, "model.num_hidden_layers"
    if not config.num_hidden_groups <= num_layers <= limit:
        raise ConfigError(
            f"--num-layers {num_layers}: give a number from {config.num_hidden_groups} "
            f"(model.num_hidden_groups) to {limit} ({name})"
        )


def at_depth(
    config: ModelConfig, params: Params, num_layers: int
) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and parameters of the model of `num_layers` layers.

    With several groups, its layers are divided among them anew.
    """
    check_depth(config, num_layers)
    config = dataclasses.replace(config, num_hidden_layers=num_layers)
    encoder = {
        kind: jax.tree.map(lambda leaf, count=count: leaf[:count], params["encoder"][kind])
        for kind, count in zip(("attention", "ffn"), sets(config), strict=True)
    }
    return config, {**params, "encoder": encoder}


def sets(config: ModelConfig) -> tuple[int, int]:
    """Number of parameter sets of the (attention, feed-forward) sublayers."""
    shared = config.num_hidden_groups * config.inner_group_num
    own = config.num_hidden_layers * config.inner_group_num
    return (
        shared if config.sharing in ("all", "attention") else own,
        shared if config.sharing in ("all", "ffn") else own,
    )


def table(config: ModelConfig, num_layers: int | None = None) -> Sharing:
    """The sharing of an encoder of `num_layers` layers (default: the config's)."""
    num_layers = config.num_hidden_layers if num_layers is None else num_layers
    check_depth(config, num_layers)
    inner = config.inner_group_num
    # The quotient is rounded in floating point, like the original's: exact integer division
    # puts some layers of deep models with many groups into another group.
    shared = tuple(
        int(layer / num_layers * config.num_hidden_groups) * inner + block
        for layer in range(num_layers)
        for block in range(inner)
    )
    own = tuple(range(num_layers * inner))
    return Sharing(
        attention=shared if config.sharing in ("all", "attention") else own,
        ffn=shared if config.sharing in ("all", "ffn") else own,
    )


@dataclass(frozen=True)
class SharedParams:
    """The parameter sets of one kind of sublayer, and the set that each block uses."""

    stacked: Params
    """Leaves [sets, ...]."""
    set_of_block: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of sets."""
        return jax.tree.leaves(self.stacked)[0].shape[0]

    def unstacked(self) -> list[Params]:
        """All sets, as separate trees."""
        if self.count == 1:
            # A reshape, because the gradient of indexing would be a scatter.
            return [jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[1:]), self.stacked)]
        return [jax.tree.map(lambda leaf, i=i: leaf[i], self.stacked) for i in range(self.count)]

    def of_block(self, block: jax.Array | int) -> Params:
        """The set that a block uses; its number may be traced."""
        if self.count == 1:
            return self.unstacked()[0]
        chosen = jnp.asarray(self.set_of_block, jnp.int32)[block]
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], self.stacked)

    def shared(self) -> Params | None:
        """The set that all blocks use, or None if there are several."""
        return self.unstacked()[0] if self.count == 1 else None

    def scanned(self) -> Params | None:
        """The sets as inputs of a scan over the blocks, leaves [blocks, ...]; None if `shared`."""
        if self.count == 1:
            return None
        if self.set_of_block == tuple(range(self.count)):
            return self.stacked
        order = jnp.asarray(self.set_of_block, jnp.int32)
        return jax.tree.map(lambda leaf: leaf[order], self.stacked)
