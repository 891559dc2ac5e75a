"""ALBERT's parameter sharing: which parameter set each block of the encoder uses.

A block is one application of an attention and of a feed-forward sublayer. A layer consists of
`inner_group_num` blocks, usually one, and the blocks of all layers are numbered consecutively.
The parameters of each kind of sublayer are stored as sets: every leaf is [sets, ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig

Params = Mapping[str, Any]
"""Nested dict of arrays."""


@dataclass(frozen=True)
class Sharing:
    """For each block, the number of the parameter set that its sublayers use."""

    attention: tuple[int, ...]
    ffn: tuple[int, ...]

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.attention)


def sets(config: ModelConfig) -> tuple[int, int]:
    """Number of parameter sets of the (attention, feed-forward) sublayers."""
    shared = config.num_hidden_groups * config.inner_group_num
    own = config.num_hidden_layers * config.inner_group_num
    return (
        shared if config.sharing in ("all", "attention") else own,
        shared if config.sharing in ("all", "ffn") else own,
    )


def table(config: ModelConfig, num_layers: int | None = None) -> Sharing:
    """The sharing of an encoder of `num_layers` layers (default: the config's).

    Shared sublayers can be applied any number of times. Sublayers with a set per block exist only
    up to the config's depth; more layers raise ValueError.
    """
    num_layers = config.num_hidden_layers if num_layers is None else num_layers
    if num_layers < 1:
        raise ValueError(f"an encoder needs at least one layer, not {num_layers}")
    if config.sharing != "all" and num_layers > config.num_hidden_layers:
        raise ValueError(
            f"sharing {config.sharing!r} has parameters for {config.num_hidden_layers} layers, "
            f"not {num_layers}"
        )
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
