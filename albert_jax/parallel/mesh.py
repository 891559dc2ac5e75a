"""The device mesh, and the rows of a batch that each process builds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from albert_jax.config import ParallelConfig
from albert_jax.errors import ConfigError
from albert_jax.parallel.hosts import available_devices

AXES = ("slice", "data", "fsdp", "tensor")
"""All axes exist in every mesh; their size is 1 by default."""
ROW_AXES = ("slice", "data", "fsdp")
"""Axes that split the rows of a batch."""


def make_mesh(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a config over the devices, by default all of them.

    Raises ConfigError when there are none, the axes do not multiply to their number, or TPUs belong
    to another number of slices than the config says.
    """
    devices = list(available_devices() if devices is None else devices)
    shape = mesh_shape(config, len(devices))
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if devices[0].platform == "tpu" and slices != config.slice:
        raise ConfigError(
            f"parallel.slice is {config.slice}, but the {len(devices)} devices belong to {slices} "
            f"slice{'s' if slices > 1 else ''}: set it to {slices}"
        )
    if config.slice > 1 and getattr(devices[0], "slice_index", None) is not None:
        grid = mesh_utils.create_hybrid_device_mesh(
            (1, *shape[1:]), (config.slice, 1, 1, 1), devices=devices,
            allow_split_physical_axes=True,
        )  # fmt: skip
    else:
        # An axis of the mesh may be a part of an axis of the torus: 8 of 16 chips, say.
        grid = mesh_utils.create_device_mesh(shape, devices=devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(config: ParallelConfig, devices: int) -> tuple[int, int, int, int]:
    """The sizes of AXES for so many devices. Raises ConfigError if they do not multiply to them."""
    fixed = config.slice * config.fsdp * config.tensor
    shape = (config.slice, config.data or devices // fixed, config.fsdp, config.tensor)
    if math.prod(shape) != devices:
        axes = " x ".join(f"{name} {size}" for name, size in zip(AXES, shape, strict=True))
        raise ConfigError(
            f"parallel: {axes} do not multiply to the {devices} devices: change them, "
            "or set parallel.data to 0 for all that the other axes leave"
        )
    return shape


def row_shards(mesh: Mesh) -> int:
    """The number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def check_rows(rows: int, gradient_accumulation_steps: int, mesh: Mesh, where: str) -> None:
    """Raises ConfigError, with usable batch sizes, when rows do not divide over the mesh."""
    unit = row_shards(mesh) * gradient_accumulation_steps
    if rows % unit:
        below = rows // unit * unit
        usable = [str(count) for count in (below, below + unit, below + 2 * unit) if count]
        raise ConfigError(
            f"{where}.batch_size {rows} is not divisible by {row_shards(mesh)} shards (slice x "
            f"data x fsdp) x {gradient_accumulation_steps} gradient accumulation steps: use "
            f"{', '.join(usable)}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a column [B, ...]: rows are split over slice, data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def local_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """The numbers, in the global batch, of the rows that this process builds, ascending int64."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((rows,))
    numbers = [np.arange(rows)[index[0]] for index in indices.values() if index is not None]
    return np.unique(np.concatenate(numbers))


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, rows: int) -> dict[str, jax.Array]:
    """The global batch of `rows` rows from the `local_rows` of every process."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, column, (rows, *column.shape[1:]))
        for name, column in batch.items()
    }
