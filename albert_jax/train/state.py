"""The train state that a run carries from step to step, and how it is laid out on the mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from albert_jax.config import Config
from albert_jax.optim.optimizer import make_optimizer, map_state
from albert_jax.parallel.rules import parameter_shardings


class TrainState(NamedTuple):
    """The state of a run; a checkpoint holds exactly this. Leaves are arrays, or their shapes."""

    step: Any
    """Optimizer steps done, int32."""
    params: Any
    """Nested dict of float32 arrays."""
    opt_state: Any
    """State of the optimizer; only the optimizer knows its structure."""
    ema: Any
    """Averaged copy of the parameters, or None."""
    skipped: Any
    """Steps whose loss or gradient was not finite, int32."""
    skipped_in_a_row: Any
    """Length of the run of skipped steps that ends with the last step, int32."""


def abstract_state(config: Config, params: Any, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state for a tree of parameters or their shapes.

    Leaves of the optimizer's state that correspond to a parameter are sharded like it; all
    others are replicated.
    """
    replicated = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shardings = parameter_shardings(params, mesh)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), params)
    optimizer = make_optimizer(config.optimizer)
    opt_state = map_state(
        optimizer,
        placed,
        jax.eval_shape(optimizer.init, shapes),
        shardings,
        others=lambda leaf: placed(leaf, replicated),
    )
    params = jax.tree.map(placed, shapes, shardings)
    counter = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    return TrainState(
        step=counter,
        params=params,
        opt_state=opt_state,
        ema=params if config.optimizer.ema_decay else None,
        skipped=counter,
        skipped_in_a_row=counter,
    )


def init_state(config: Config, params: Any, mesh: Mesh) -> TrainState:
    """The state before the first step, from complete parameters in every process.

    Each device receives its own part only; the averaged copy starts as the parameters.
    """
    shapes = abstract_state(config, params, mesh)

    def place(leaf: Any, shape: Any) -> jax.Array:
        # A copy, because the CPU backend may otherwise share memory with the caller's array.
        full = np.array(leaf, dtype=shape.dtype)
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda i: full[i])

    placed = jax.tree.map(place, params, shapes.params)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes.opt_state)
    init_optimizer = jax.jit(make_optimizer(config.optimizer).init, out_shardings=shardings)
    return TrainState(
        step=place(0, shapes.step),
        params=placed,
        opt_state=init_optimizer(placed),
        ema=None if shapes.ema is None else jax.tree.map(place, params, shapes.ema),
        skipped=place(0, shapes.skipped),
        skipped_in_a_row=place(0, shapes.skipped_in_a_row),
    )
