"""The plan of a run on a slice: memory, time and cost of every phase, as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from albert_jax.config import Config, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.model import flops
from albert_jax.model.albert import abstract_params
from albert_jax.model.init import num_parameters
from albert_jax.parallel.mesh import check_rows
from albert_jax.parallel.rules import unsharded
from albert_jax.plan import estimate, hlo
from albert_jax.plan.compile import StepNeeds, compile_phase
from albert_jax.plan.slices import Slice

REMAT_POLICIES = ("none", "dots", "full")
"""Rematerialization policies, each of which needs less memory than the one before."""
MAX_ROWS_PER_DEVICE = 4096
"""First number of rows per device in the search for the largest batch, which halves it."""


def plan(
    config: Config,
    where: Slice,
    *,
    steps: Sequence[StepNeeds] | None = None,
    efficiency: float = 0.5,
    price: float = 0.0,
) -> dict[str, Any]:
    """The figures of a run on a slice, and the time and cost that they add up to.

    `steps` are those of `compile_steps`, if they were compiled already. `efficiency` is the share
    of the chips' peak that time and cost assume; a `price` of a chip-hour of 0 leaves the cost
    out. Raises ConfigError for a config that does not divide over the slice.
    """
    config.validate()
    steps = compile_steps(config, where) if steps is None else steps
    phases = [
        {"phase": number} | _phase_figures(config, phase, where, step, efficiency)
        for number, (phase, step) in enumerate(zip(config.phases, steps, strict=True))
    ]
    hours = sum(phase["steps"] * phase["expected_step"] for phase in phases) / 3600
    return {
        "slice": where.name,
        "described": where.describe(),
        "chips": where.chips,
        "hosts": where.hosts,
        "topology": "x".join(map(str, where.topology)),
        "compiled": where.is_tpu,
        "parameters": num_parameters(config.model),
        "remat": config.compute.remat,
        "unroll": config.compute.unroll is True,
        "fsdp": config.parallel.fsdp,
        "unsharded": _unsharded(config),
        "efficiency": efficiency,
        "phases": phases,
        "fits": all(step.fits for step in steps),
        "hours": hours,
        "chip_hours": hours * where.chips,
        "cost": hours * where.chips * price if price else None,
    }


def compile_steps(config: Config, where: Slice) -> list[StepNeeds]:
    """The needs of each phase's step on the slice: compiled for TPUs, by formula for GPUs.

    Raises ConfigError for a phase whose rows do not divide over the slice.
    """
    _check_rows(config, where)  # Of all phases before the first takes its minute to compile.
    return [_compile(config, phase, where) for phase in config.phases]


def nearest_that_fits(config: Config, where: Slice) -> tuple[str, Config] | None:
    """The smallest change under which every phase fits, in words and as a config.

    It tries more rematerialization first, then more gradient accumulation; None if neither helps.
    """
    policies = REMAT_POLICIES[REMAT_POLICIES.index(config.compute.remat) + 1 :]
    tries = [(policy, 1) for policy in policies] + [("full", times) for times in (2, 4, 8, 16, 32)]
    for policy, times in tries:
        phases = tuple(
            replace(phase, gradient_accumulation_steps=phase.gradient_accumulation_steps * times)
            for phase in config.phases
        )
        changed = _with_remat(replace(config, phases=phases), policy)
        try:
            _check_rows(changed, where)
        except ConfigError:
            return None  # The rows do not divide any further.
        if all(_compile(changed, phase, where).fits for phase in phases):
            more = f" and {times} times the gradient_accumulation_steps" if times > 1 else ""
            return f'compute.remat = "{policy}"{more}', changed
    return None


def largest_rows_per_chip(config: Config, where: Slice) -> dict[str, int]:
    """For each rematerialization policy the most rows per chip whose step of phase 0 fits.

    Rows per device are powers of two, 0 if none fits. The search goes down from a large batch,
    because the compiler refuses within seconds what it would need a minute to compile.
    """
    result = {}
    for policy in REMAT_POLICIES:
        rows = MAX_ROWS_PER_DEVICE
        while rows:
            batch_size = rows * where.devices
            phase = replace(config.phases[0], batch_size=batch_size, gradient_accumulation_steps=1)
            if _compile(_with_remat(config, policy), phase, where).fits:
                break
            rows //= 2
        result[policy] = rows * where.chip.devices
    return result


def _check_rows(config: Config, where: Slice) -> None:
    mesh = estimate.abstract_mesh(config, where)
    for number, phase in enumerate(config.phases):
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, f"phases.{number}")


def _compile(config: Config, phase: PhaseConfig, where: Slice) -> StepNeeds:
    """The needs of a step, at the deepest of the phase's depths."""
    deepest = max(phase.depths, default=config.model.num_hidden_layers)
    if deepest > config.model.num_hidden_layers:
        config = replace(config, model=replace(config.model, num_hidden_layers=deepest))
    method = compile_phase if where.is_tpu else estimate.by_formula
    return method(config, phase, where)


def _phase_figures(
    config: Config, phase: PhaseConfig, where: Slice, step: StepNeeds, efficiency: float
) -> dict[str, Any]:
    limits = estimate.bound(config, phase, where, step.collectives if step.fits else None)
    work = flops.per_step(config.model, phase)
    cycles = _cycles(step, work, where)
    by_compiler = (cycles or {}).get("seconds") or 0.0
    return {
        "steps": phase.steps,
        "batch_size": phase.batch_size,
        "sequence_length": phase.sequence_length,
        "gradient_accumulation_steps": phase.gradient_accumulation_steps,
        "rows_per_chip": phase.batch_size / where.chips,
        "fits": step.fits,
        "memory": step.memory,
        "limit": step.limit,
        "arguments": step.arguments,
        "temporary": step.temporary,
        "compilation": step.seconds,
        "flops": work,
        "bound": asdict(limits) | {"step": limits.step},
        "expected_step": max(limits.expected(efficiency), by_compiler),
        "cycles": cycles,
        "collectives": hlo.grouped(step.collectives),
    }


def _cycles(step: StepNeeds, work: float, where: Slice) -> dict[str, float | None] | None:
    """The compiler's estimate; seconds and the MFU they allow where the chip's clock is known."""
    if not step.cycles:
        return None
    seconds = step.cycles / where.chip.clock if where.chip.clock else None
    mfu = work / where.chips / where.chip.flops / seconds if seconds else None
    return {"cycles": step.cycles, "seconds": seconds, "mfu": mfu}


def _unsharded(config: Config) -> dict[str, int]:
    """Path and bytes of each parameter that FSDP leaves whole on every device."""
    if config.parallel.fsdp == 1:
        return {}
    return unsharded(abstract_params(config.model), asdict(config.parallel))


def _with_remat(config: Config, policy: str) -> Config:
    compute = replace(config.compute, remat=policy)  # type: ignore[arg-type]
    return replace(config, compute=compute)
