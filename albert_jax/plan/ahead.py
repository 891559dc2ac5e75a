"""Compiles the true train step for a TPU slice ahead of time: no TPU, no network, only libtpu."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.config import Config, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.plan import program
from albert_jax.plan.collectives import Collective, parse
from albert_jax.plan.slices import Slice


@dataclass(frozen=True)
class Compiled:
    """A phase's step on a slice; bytes are of one device."""

    fits: bool
    memory: float
    """Needed, at most over all moments of a step."""
    limit: float
    arguments: float
    """State and batch."""
    temporary: float
    collectives: list[Collective]
    seconds: float
    """Compilation time."""
    cycles: float = 0.0
    """The compiler's estimate, without collectives and fused kernels (see program.py); 0: none."""


def topology(where: Slice) -> Any:
    """The devices of a slice, described by libtpu.

    Raises ConfigError when libtpu is missing or has no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "compiling for a TPU needs libtpu: pip install 'albert-jax[tpu-plan]' "
            "(or -e '.[tpu-plan]' in a checkout)"
        )
    # A second process would abort on the first one's lock file.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # libtpu would look for the TPU host that this machine is not, and complain.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    from jax.experimental import topologies

    kind = {"7x": "tpu7x"}.get(where.chip.name, where.chip.name)
    shape = where.topology
    bounds = (2, 2, 1)
    if where.hosts == 1:
        bounds = (shape[0], shape[1], 1)
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


def compile_phase(config: Config, phase: PhaseConfig, where: Slice) -> Compiled:
    """Compiles one step of a phase for a slice.

    Raises ConfigError for a mesh or batch that does not divide, and as `topology` does.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from albert_jax.data.batches.rows import batch_shapes
    from albert_jax.model import attention
    from albert_jax.model.albert import abstract_params
    from albert_jax.objectives.pretraining import pretraining_loss
    from albert_jax.parallel.mesh import batch_sharding, make_mesh
    from albert_jax.train.state import abstract_state
    from albert_jax.train.step import make_train_step

    mesh = make_mesh(config.parallel, topology(where).devices)
    backend = attention.choose(config, mesh.devices.flat[0])
    loss = pretraining_loss(config.model, config.compute, backend)
    step = make_train_step(config, phase, mesh, loss)
    rows = batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, kind, sharding=rows)
        for name, (shape, kind) in batch_shapes(phase, phase.batch_size).items()
    }
    whole = NamedSharding(mesh, PartitionSpec())
    scalars = {
        "learning_rate": jax.ShapeDtypeStruct((), np.float32, sharding=whole),
        "seed": jax.ShapeDtypeStruct((), np.int32, sharding=whole),
    }
    state = abstract_state(config, abstract_params(config.model), mesh)
    limit = where.chip.memory / where.chip.devices
    began = time.perf_counter()
    cached = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    # What is compiled for devices that are not here can be written to the cache, but not read.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compiled = step.lower(state, batch, scalars).compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_memory(str(error))
        if needed is None:
            raise
        return Compiled(False, needed, limit, 0, 0, [], time.perf_counter() - began)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    seconds = time.perf_counter() - began
    told: Any = compiled.memory_analysis()
    arguments = told.argument_size_in_bytes
    kept = told.output_size_in_bytes - told.alias_size_in_bytes
    code = told.generated_code_size_in_bytes
    memory = arguments + kept + told.temp_size_in_bytes + code
    text = compiled.as_text()
    return Compiled(
        memory <= limit, memory, limit, arguments, told.temp_size_in_bytes,
        parse(text), seconds, program.cycles(text),
    )  # fmt: skip


def needed_memory(message: str) -> float | None:
    """Bytes that the compiler says it needs in its refusal; None if it is another error.

    >>> needed_memory("RESOURCE_EXHAUSTED: ... Used 39.90G of 15.75G hbm.") / 2**30
    39.9
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message)
    if not found:
        return float("inf")
    return float(found[1]) * 2.0 ** {"K": 10, "M": 20, "G": 30, "T": 40}[found[2]]
