"""Time and memory by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albert_jax.config import Config, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.model.init import count
from albert_jax.observe import flops
from albert_jax.plan.ahead import Compiled
from albert_jax.plan.collectives import Collective, total
from albert_jax.plan.slices import Slice

OPTIMIZER_BYTES = 36
"""Per parameter and step: LAMB reads parameter, gradient and two moments, writes three of them,
and reads twice more for the norms, in float32."""
STATE_BYTES = 12
"""Per parameter: itself and two moments, float32."""
EFFICIENCY = 0.5
"""Share of the peak that a step reaches, unless another is given."""


@dataclass(frozen=True)
class Bound:
    """Least time of a step in seconds, from each limit alone."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """All three at once, perfectly overlapped: no step is quicker."""
        return max(self.compute, self.memory, self.interconnect)

    def expected(self, efficiency: float) -> float:
        """The step at a share of the peak, communication not overlapped."""
        return max(self.compute / efficiency, self.memory) + self.interconnect


def bound(
    config: Config, phase: PhaseConfig, where: Slice, found: Sequence[Collective] | None = None
) -> Bound:
    """The limits of a phase's step on a slice.

    Compute: FLOPs by formula over the chips' peak. Memory: the optimizer's traffic, and each
    block's inputs and outputs once forward and twice backward. Interconnect: the bytes of the
    compiled collectives (`found`; None: one float32 reduction of the gradient), twice for an
    all-reduce, over the slice's bandwidth; those in a loop once a block.
    """
    model, parameters = config.model, count(config.model)
    compute = flops.per_step(model, phase) / (where.chips * where.chip.flops)
    blocks = model.num_hidden_layers * model.inner_group_num
    tokens = phase.batch_size * phase.sequence_length / where.chips
    width = 8 * model.hidden_size + 2 * model.intermediate_size
    item = 2 if config.compute.dtype == "bfloat16" else 4
    traffic = 3 * tokens * blocks * width * item
    traffic += OPTIMIZER_BYTES * parameters / config.parallel.fsdp
    if found is None:
        sent = 2.0 * 4 * parameters if where.devices > 1 else 0.0
    else:
        sent = 0.0
        for one in found:
            times = blocks if one.in_loop else 1
            sent += times * total([one]) * (2 if one.kind == "all-reduce" else 1)
    return Bound(compute, traffic / where.chip.bandwidth, sent / where.bandwidth())


def by_formula(config: Config, phase: PhaseConfig, where: Slice) -> Compiled:
    """Memory of a step on GPUs, which no compiler here can tell: state, gradient and the
    gathered copy, and per block what the backward pass keeps (all, what matrix products gave, or
    the block's input), with no S x S scores (a fused kernel)."""
    if phase.batch_size % (where.devices * phase.gradient_accumulation_steps):
        raise ConfigError(
            f"phases: {phase.batch_size} rows do not divide by {where.devices} devices x "
            f"{phase.gradient_accumulation_steps} gradient accumulation steps: change "
            "phases.batch_size"
        )
    model, parameters = config.model, count(config.model)
    shards = config.parallel.fsdp
    tokens = (
        phase.batch_size * phase.sequence_length / where.devices / phase.gradient_accumulation_steps
    )
    kept = {
        "none": 13 * model.hidden_size + 4 * model.intermediate_size,
        "dots": 7 * model.hidden_size + model.intermediate_size,
        "full": model.hidden_size,
    }[config.compute.remat]
    one = 13 * model.hidden_size + 4 * model.intermediate_size
    item = 2 if config.compute.dtype == "bfloat16" else 4
    blocks = model.num_hidden_layers * model.inner_group_num
    predictions = phase.max_predictions_per_seq / phase.sequence_length
    logits = tokens * predictions * model.vocab_size * 4 * 2
    activations = tokens * (kept * blocks + one) * item + logits
    state = STATE_BYTES * parameters / shards
    copies = 4 * parameters * (2 if shards > 1 else 1)
    limit = where.chip.memory / where.chip.devices
    memory = state + copies + activations
    reduction = [Collective("all-reduce", ("f32",), 4 * parameters, False)]
    return Compiled(
        memory <= limit, memory, limit, state, copies + activations,
        reduction if where.devices > 1 else [], 0.0,
    )  # fmt: skip
