"""Compiles the real train step for a TPU slice ahead of time; this needs only libtpu, no TPU."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from albert_jax.config import Config, PhaseConfig
from albert_jax.data.batches.batch import batch_shapes
from albert_jax.errors import ConfigError
from albert_jax.model import attention
from albert_jax.model.albert import abstract_params
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.parallel.mesh import batch_sharding, make_mesh
from albert_jax.plan import hlo
from albert_jax.plan.slices import Slice
from albert_jax.train.state import abstract_state
from albert_jax.train.step import make_train_step


@dataclass(frozen=True)
class StepNeeds:
    """The needs of a phase's step on a slice; bytes are those of one device."""

    limit: float
    """Memory that a program can use."""
    arguments: float
    """Train state and batch."""
    temporary: float
    """All else that is alive at the peak."""
    collectives: list[hlo.Collective]
    seconds: float = 0.0
    """Compilation time."""
    cycles: float = 0.0
    """The compiler's estimate (hlo.cycles), or 0 without one."""

    @property
    def memory(self) -> float:
        """Peak memory over a step."""
        return self.arguments + self.temporary

    @property
    def fits(self) -> bool:
        """Returns whether a device has that much memory."""
        return self.memory <= self.limit


def topology(where: Slice) -> Any:
    """The devices of a slice as libtpu describes them.

    Raises ConfigError when libtpu is missing or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "compiling for a TPU needs libtpu: pip install -e '.[tpu-plan]' in the checkout"
        )
    # Without this a second process would abort on the lock file of the first.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Without these libtpu looks for the TPU host that this machine is not, and complains.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    kind = {"7x": "tpu7x"}.get(where.chip.name, where.chip.name)
    shape = where.topology
    bounds = (shape[0], shape[1], 1) if where.hosts == 1 else (2, 2, 1)
    options: dict[str, Any] = {"chips_per_host_bounds": bounds}
    if kind == "v4":
        options["chip_config_name"] = "megacore"
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=f"{kind}:{'x'.join(map(str, shape))}", **options
        )
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--slice {where.name}: libtpu has no such topology ({first})") from error


def compile_phase(config: Config, phase: PhaseConfig, where: Slice) -> StepNeeds:
    """Compiles one step of a phase, whose rows must divide over the slice.

    Raises ConfigError for a mesh that does not divide, and as `topology` does.
    """
    lowered = _lower(config, phase, topology(where).devices)
    start = time.perf_counter()
    cached = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    # Programs for devices that are absent can be written to the cache, but not read back.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_memory(str(error))
        if needed is None:
            raise
        return StepNeeds(where.device_memory, 0, needed, [], time.perf_counter() - start)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    seconds = time.perf_counter() - start
    stats: Any = compiled.memory_analysis()
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    text = compiled.as_text()
    return StepNeeds(
        limit=where.device_memory,
        arguments=stats.argument_size_in_bytes,
        temporary=stats.temp_size_in_bytes + outputs + stats.generated_code_size_in_bytes,
        collectives=hlo.collectives(text),
        seconds=seconds,
        cycles=hlo.cycles(text),
    )


def _lower(config: Config, phase: PhaseConfig, devices: Any) -> Any:
    """The train step of a phase, lowered for these devices."""
    mesh = make_mesh(config.parallel, devices)
    backend = attention.choose(config, mesh.devices.flat[0])
    loss = pretraining_loss(config.model, config.compute, backend, objective=phase.objective)
    rows, replicated = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in batch_shapes(phase, phase.batch_size).items()
    }
    scalars = {
        "learning_rate": jax.ShapeDtypeStruct((), np.float32, sharding=replicated),
        "seed": jax.ShapeDtypeStruct((), np.int32, sharding=replicated),
    }
    state = abstract_state(config, abstract_params(config.model), mesh)
    return make_train_step(config, phase, mesh, loss).lower(state, batch, scalars)


def needed_memory(message: str) -> float | None:
    """Bytes that the compiler says it needs when it refuses; None for another error.

    >>> needed_memory("RESOURCE_EXHAUSTED: ... Used 39.90G of 15.75G hbm.") / 2**30
    39.9
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    used = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    if not used:
        return float("inf")
    return float(used[1]) * 2.0 ** {"K": 10, "M": 20, "G": 30, "T": 40}[used[2]]
