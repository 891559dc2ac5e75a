"""Everything that a run carries from step to step, and where it lies on the mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax.config import Config
from albert_jax.optim.adamw import Moments
from albert_jax.parallel.rules import parameter_shardings


class TrainState(NamedTuple):
    """State of a run; a checkpoint holds exactly this. Leaves are arrays, or their shapes."""

    step: Any
    """Steps done, int32."""
    params: Any
    """Nested dict of float32 arrays."""
    opt_state: Moments
    """Moments of the gradients, like the parameters."""
    ema: Any
    """Averaged copy of the parameters, or None."""
    skipped: Any
    """Steps whose loss or gradient was not finite, int32."""
    skipped_in_a_row: Any
    """How many of the last steps were skipped without a good one between, int32."""


def abstract_state(config: Config, params: Any, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state for a tree of parameters or their shapes."""
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=sharding),
        params,
        parameter_shardings(params, mesh),
    )
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    return TrainState(
        step=number,
        params=placed,
        opt_state=Moments(m=placed, v=placed),
        ema=placed if config.optimizer.ema_decay else None,
        skipped=number,
        skipped_in_a_row=number,
    )


def state_shardings(config: Config, params: Any, mesh: Mesh) -> TrainState:
    """The shardings of the state, as a tree like it."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, params, mesh))


def init_state(config: Config, params: Any, mesh: Mesh) -> TrainState:
    """The state before the first step, from parameters that every process holds whole.

    Each device receives its own part only; moments are 0, the averaged copy is the parameters.
    """
    shapes = abstract_state(config, params, mesh)

    def place(leaf: Any, shape: Any) -> jax.Array:
        # A copy, because the CPU backend may otherwise share memory with the caller's array.
        whole = np.array(leaf, dtype=shape.dtype)
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda i: whole[i])

    def zeros(shape: Any) -> jax.Array:
        return place(np.zeros(shape.shape, shape.dtype), shape)

    return TrainState(
        step=zeros(shapes.step),
        params=jax.tree.map(place, params, shapes.params),
        opt_state=jax.tree.map(zeros, shapes.opt_state),
        ema=None if shapes.ema is None else jax.tree.map(place, params, shapes.ema),
        skipped=zeros(shapes.skipped),
        skipped_in_a_row=zeros(shapes.skipped_in_a_row),
    )
