"""Time and memory of a train step by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from albert_jax.config import Config, PhaseConfig
from albert_jax.model import flops
from albert_jax.model.albert import abstract_params
from albert_jax.model.init import num_parameters
from albert_jax.parallel.mesh import AXES, mesh_shape
from albert_jax.plan.compile import StepNeeds
from albert_jax.plan.hlo import Collective
from albert_jax.plan.slices import Slice
from albert_jax.train.state import abstract_state


@dataclass(frozen=True)
class Bound:
    """The least time of a step in seconds that each resource alone allows."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """Lower bound of a step: all three resources overlap perfectly."""
        return max(self.compute, self.memory, self.interconnect)

    def expected(self, efficiency: float) -> float:
        """A step that reaches this share of the peak and does not overlap communication."""
        return max(self.compute / efficiency, self.memory) + self.interconnect


def bound(
    config: Config, phase: PhaseConfig, where: Slice, collectives: Sequence[Collective] | None
) -> Bound:
    """The bounds of a phase's step on a slice.

    Compute is the FLOPs by formula over the chips' peak. Memory is the traffic of the update (the
    train state is read and written, the gradient and two values for norms are read) plus the
    inputs and outputs of each block, once forward and twice backward. Interconnect is the bytes of
    the compiled collectives over the slice's bandwidth, where an all-reduce counts twice and a
    collective in a loop as often as it runs; without collectives it is one float32 reduction of
    the gradient.
    """
    model, parameters = config.model, num_parameters(config.model)
    compute = flops.per_step(model, phase) / (where.chips * where.chip.flops)
    blocks = model.num_hidden_layers * model.inner_group_num
    tokens = phase.batch_size * phase.sequence_length / where.chips
    width = 8 * model.hidden_size + 2 * model.intermediate_size
    traffic = 3 * tokens * blocks * width * jnp.dtype(config.compute.dtype).itemsize
    update = 2 * state_bytes(config, where) + 3 * 4 * parameters / config.parallel.fsdp
    traffic += update * where.chip.devices
    if collectives is None:
        sent = 2.0 * 4 * parameters if where.devices > 1 else 0.0
    else:
        sent = sum(
            op.bytes * op.times * (2 if op.kind == "all-reduce" else 1) for op in collectives
        )
    return Bound(compute, traffic / where.chip.bandwidth, sent / where.bandwidth())


def by_formula(config: Config, phase: PhaseConfig, where: Slice) -> StepNeeds:
    """Memory of a step on GPUs, for which no compiler is available here.

    The rows of the phase must divide over the slice. The memory is that of train state, gradient
    and gathered copy, and per block what the backward pass keeps (everything, the results of matrix
    products, or the block's input). Attention keeps no S x S scores, because a fused kernel
    computes it.
    """
    accumulation = phase.gradient_accumulation_steps
    model, parameters, shards = config.model, num_parameters(config.model), config.parallel.fsdp
    tokens = phase.batch_size * phase.sequence_length / where.devices / accumulation
    everything = 13 * model.hidden_size + 4 * model.intermediate_size
    kept = {
        "none": everything,
        "dots": 7 * model.hidden_size + model.intermediate_size,
        "full": model.hidden_size,
    }[config.compute.remat]
    blocks = model.num_hidden_layers * model.inner_group_num
    softmax_size = phase.objective.softmax_size(model) or model.vocab_size
    logits = tokens * phase.max_predictions_per_seq / phase.sequence_length * softmax_size * 8
    activations = (
        tokens * (kept * blocks + everything) * jnp.dtype(config.compute.dtype).itemsize + logits
    )
    reduction = Collective("all-reduce", ("f32",), 4 * parameters, False)
    return StepNeeds(
        limit=where.device_memory,
        arguments=state_bytes(config, where),
        temporary=4 * parameters * (2 if shards > 1 else 1) + activations,
        collectives=[reduction] if where.devices > 1 else [],
    )


def state_bytes(config: Config, where: Slice) -> float:
    """Bytes of the train state on one device, for the optimizer of the config."""
    state = abstract_state(config, abstract_params(config.model), abstract_mesh(config, where))
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


def abstract_mesh(config: Config, where: Slice) -> Any:
    """The mesh of a run on the slice, without its devices."""
    return AbstractMesh(mesh_shape(config.parallel, where.devices), AXES)
