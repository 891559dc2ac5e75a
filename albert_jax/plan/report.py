"""The plan of a run on a slice: figures of every phase, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.observe import flops
from albert_jax.observe.chips import GIB
from albert_jax.plan import ahead, estimate
from albert_jax.plan.ahead import Compiled
from albert_jax.plan.slices import Slice

LADDER = ("none", "dots", "full")
"""Rematerialisation policies, each needing less memory than the one before."""


def plan(
    config: Config, where: Slice, *, efficiency: float = estimate.EFFICIENCY, price: float = 0.0
) -> dict[str, Any]:
    """Compiles each phase's step for the slice (GPUs: by formula) and adds up time and cost.

    `price` is that of a chip-hour. If a phase does not fit, "nearest" tells the change that does.
    """
    config.validate()
    if not 0 < efficiency <= 1:
        raise ConfigError(f"--efficiency {efficiency}: give a share above 0, at most 1")
    phases, seconds, fits = [], 0.0, True
    for number, phase in enumerate(config.phases):
        found = look(config, number, where)
        limits = estimate.bound(config, phase, where, found.collectives if found.fits else None)
        expected = limits.expected(efficiency)
        seconds += phase.steps * expected
        fits &= found.fits
        phases.append(
            {
                "phase": number,
                "steps": phase.steps,
                "rows": phase.rows,
                "sequence_length": phase.sequence_length,
                "rows_per_chip": phase.rows / where.chips,
                "fits": found.fits,
                "memory": found.memory,
                "limit": found.limit,
                "arguments": found.arguments,
                "temporary": found.temporary,
                "compilation": found.seconds,
                "flops": flops.per_step(config.model, phase),
                "bound": dataclasses.asdict(limits) | {"step": limits.step},
                "expected_step": expected,
                "collectives": _collectives(found),
            }
        )
    hours = seconds / 3600
    told: dict[str, Any] = {
        "slice": where.name,
        "described": where.describe(),
        "chips": where.chips,
        "hosts": where.hosts,
        "topology": "x".join(map(str, where.topology)),
        "compiled": where.is_tpu,
        "parameters": estimate.count_parameters(config),
        "remat": config.compute.remat,
        "efficiency": efficiency,
        "phases": phases,
        "fits": fits,
        "hours": hours,
        "chip_hours": hours * where.chips,
        "cost": hours * where.chips * price if price else None,
        "nearest": None if fits else _nearest(config, where),
    }
    return told


def look(config: Config, number: int, where: Slice) -> Compiled:
    """What one phase needs on the slice."""
    phase = config.phases[number]
    if where.is_tpu:
        return ahead.compile_phase(config, phase, where)
    return estimate.by_formula(config, phase, where)


def _nearest(config: Config, where: Slice) -> str | None:
    """The least change under which every phase fits: more rematerialisation, then micro-batches."""
    policies = LADDER[LADDER.index(config.compute.remat) + 1 :]
    tries = [(policy, 1) for policy in policies] + [("full", parts) for parts in (2, 4, 8, 16, 32)]
    for policy, parts in tries:
        compute = dataclasses.replace(config.compute, remat=policy)  # type: ignore[arg-type]
        phases = tuple(
            dataclasses.replace(phase, micro_batches=phase.micro_batches * parts)
            for phase in config.phases
        )
        other = dataclasses.replace(config, compute=compute, phases=phases)
        try:
            if all(look(other, number, where).fits for number in range(len(phases))):
                more = f" and {parts} times the micro_batches" if parts > 1 else ""
                return f'compute.remat = "{policy}"{more}'
        except ConfigError:
            return None  # the rows do not divide further
    return None


def largest_rows(config: Config, number: int, where: Slice) -> dict[str, int]:
    """For each rematerialisation policy the most rows per chip, in powers of two, whose step of
    this phase fits (0: none does). Each try compiles; a refusal comes quickly."""
    phase, found = config.phases[number], {}
    for policy in LADDER:
        compute = dataclasses.replace(config.compute, remat=policy)  # type: ignore[arg-type]
        rows = 1
        while rows <= 4096:
            bigger = dataclasses.replace(phase, rows=rows * where.devices, micro_batches=1)
            other = dataclasses.replace(config, compute=compute, phases=(bigger,))
            if not look(other, 0, where).fits:
                break
            rows *= 2
        found[policy] = rows // 2 * where.chip.devices
    return found


def table(told: dict[str, Any]) -> str:
    """The plan as lines; the last one begins with "fits" or "does not fit"."""
    lines = [
        told["described"],
        f"parameters {told['parameters']:,}, rematerialisation {told['remat']}, "
        + ("compiled for the slice" if told["compiled"] else "by formula, not compiled"),
    ]
    for phase in told["phases"]:
        limits = phase["bound"]
        lines += [
            f"phase {phase['phase']}: {phase['steps']:,} steps of {phase['rows']} x "
            f"{phase['sequence_length']} ({phase['rows_per_chip']:g} rows a chip)",
            f"  memory      {phase['memory'] / GIB:.2f} of {phase['limit'] / GIB:.2f} GiB a device "
            f"(state and batch {phase['arguments'] / GIB:.2f}, temporary "
            f"{phase['temporary'] / GIB:.2f})",
            f"  FLOPs       {phase['flops']:.4g} a step",
            f"  bound       {limits['step'] * 1e3:.4g} ms: compute {limits['compute'] * 1e3:.4g}, "
            f"memory {limits['memory'] * 1e3:.4g}, interconnect "
            f"{limits['interconnect'] * 1e3:.4g}",
            f"  expected    {phase['expected_step'] * 1e3:.4g} ms at {told['efficiency']:.0%} of "
            "the peak",
        ]
        lines += [
            f"  sends       {one['count']} x {one['kind']} {','.join(one['types'])}, "
            f"{one['bytes'] / 1e6:.4g} MB, {'inside' if one['in_loop'] else 'outside'} the loop"
            for one in phase["collectives"]
        ]
    lines.append(
        f"time {told['hours']:.4g} hours, {told['chip_hours']:,.4g} chip-hours"
        + (f", cost {told['cost']:,.2f}" if told["cost"] is not None else "")
    )
    lines.append(verdict(told))
    return "\n".join(lines)


def verdict(told: dict[str, Any]) -> str:
    """The last line."""
    worst = max(told["phases"], key=lambda phase: phase["memory"] / phase["limit"])
    if told["fits"]:
        left = (worst["limit"] - worst["memory"]) / GIB
        return f"fits: {told['slice']} has {left:.2f} GiB a device to spare"
    over = (worst["memory"] - worst["limit"]) / GIB
    by = f"{over:.2f} GiB" if math.isfinite(over) else "an amount the compiler did not tell"
    nearest = told["nearest"]
    mend = f"it fits with {nearest}" if nearest else "use a larger slice or fewer rows"
    return f"does not fit: phase {worst['phase']} needs {by} a device too much; {mend}"


def _collectives(found: Compiled) -> list[dict[str, Any]]:
    """Operations of one kind, type and place, counted and added up, largest first."""
    count: Counter[Any] = Counter()
    size: Counter[Any] = Counter()
    for one in found.collectives:
        key = (one.kind, one.types, one.in_loop)
        count[key] += 1
        size[key] += one.bytes
    return [
        {"kind": kind, "types": types, "in_loop": in_loop, "count": count[kind, types, in_loop],
         "bytes": bytes_}
        for (kind, types, in_loop), bytes_ in size.most_common()
    ]  # fmt: skip
