"""The plan of a run on a slice: figures of every phase, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from albert_jax.config import Config, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.model.albert import abstract_params
from albert_jax.model.init import count
from albert_jax.observe import flops
from albert_jax.parallel.rules import unsharded
from albert_jax.plan import ahead, budget, estimate
from albert_jax.plan.ahead import Compiled
from albert_jax.plan.chips import GIB
from albert_jax.plan.collectives import Collective
from albert_jax.plan.slices import Slice

LADDER = ("none", "dots", "full")
"""Rematerialisation policies, each needing less memory than the one before."""


MOST_ROWS = 4096
"""Rows per device at which the search for the largest batch begins."""


def plan(
    config: Config,
    where: Slice,
    *,
    found: Sequence[Compiled] | None = None,
    efficiency: float = estimate.EFFICIENCY,
    price: float = 0.0,
) -> dict[str, Any]:
    """The figures of a run on a slice, and what time and cost they add up to.

    `found` is what `look` told of each phase (None: it is asked now), `price` that of a
    chip-hour. "nearest" is left to `answer`.
    """
    config.validate()
    if not 0 < efficiency <= 1:
        raise ConfigError(f"--efficiency {efficiency}: give a share above 0, at most 1")
    found = look(config, where) if found is None else found
    phases, seconds = [], 0.0
    for number, (phase, one) in enumerate(zip(config.phases, found, strict=True)):
        limits = estimate.bound(config, phase, where, one.collectives if one.fits else None)
        expected = limits.expected(efficiency)
        seconds += phase.steps * expected
        work = flops.per_step(config.model, phase)
        phases.append(
            {
                "phase": number,
                "steps": phase.steps,
                "rows": phase.batch_size,
                "sequence_length": phase.sequence_length,
                "micro_batches": phase.gradient_accumulation_steps,
                "rows_per_chip": phase.batch_size / where.chips,
                "fits": one.fits,
                "memory": one.memory,
                "limit": one.limit,
                "arguments": one.arguments,
                "temporary": one.temporary,
                "compilation": one.seconds,
                "flops": work,
                "bound": dataclasses.asdict(limits) | {"step": limits.step},
                "expected_step": expected,
                "cycles": _cycles(one, work, where),
                "collectives": grouped(one.collectives),
            }
        )
    fits = all(one.fits for one in found)
    hours = seconds / 3600
    told: dict[str, Any] = {
        "slice": where.name,
        "described": where.describe(),
        "chips": where.chips,
        "hosts": where.hosts,
        "topology": "x".join(map(str, where.topology)),
        "compiled": where.is_tpu,
        "parameters": count(config.model),
        "remat": config.compute.remat,
        "unroll": config.compute.unroll,
        "fsdp": config.parallel.fsdp,
        "whole": _whole(config),
        "efficiency": efficiency,
        "phases": phases,
        "fits": fits,
        "hours": hours,
        "chip_hours": hours * where.chips,
        "cost": hours * where.chips * price if price else None,
        "nearest": None,
    }
    return told


def answer(
    name: str,
    config: Config,
    where: Slice,
    *,
    efficiency: float,
    price: float,
    adapt: bool = False,
    hours: float | None = None,
    out: str = "",
) -> tuple[Config, dict[str, Any]]:
    """The config and its `plan`, with the "nearest" that fits, in words, if it does not.

    With `adapt` the nearest that fits is taken in its place. With `hours` its steps become those
    that the hours buy, it is written to `out`, and the plan has "bought"; nothing is written for
    what does not fit.
    """
    found = look(config, where)
    nearest = None if all(one.fits for one in found) else nearest_that_fits(config, where)
    if nearest and adapt:
        config, nearest = nearest[1], None
        found = look(config, where)
    told = plan(config, where, found=found, efficiency=efficiency, price=price)
    if hours is None or not told["fits"]:
        return config, told | {"nearest": nearest and nearest[0]}
    seconds = [phase["expected_step"] for phase in told["phases"]]
    config, bought = budget.spend(name, config, seconds, hours, out)
    told = plan(config, where, found=found, efficiency=efficiency, price=price)
    return config, told | {"bought": bought}


def look(config: Config, where: Slice) -> list[Compiled]:
    """What each phase's step needs on the slice: compiled for it (GPUs: by formula)."""
    return [_look(config, phase, where) for phase in config.phases]


def _look(config: Config, phase: PhaseConfig, where: Slice) -> Compiled:
    if where.is_tpu:
        return ahead.compile_phase(config, phase, where)
    return estimate.by_formula(config, phase, where)


def nearest_that_fits(config: Config, where: Slice) -> tuple[str, Config] | None:
    """The least change under which every phase fits, in words and as a config: more
    rematerialisation, then micro-batches."""
    policies = LADDER[LADDER.index(config.compute.remat) + 1 :]
    tries = [(policy, 1) for policy in policies] + [("full", parts) for parts in (2, 4, 8, 16, 32)]
    for policy, parts in tries:
        phases = tuple(
            dataclasses.replace(
                phase, gradient_accumulation_steps=phase.gradient_accumulation_steps * parts
            )
            for phase in config.phases
        )
        other = dataclasses.replace(_under(config, policy), phases=phases)
        try:
            if all(_look(other, phase, where).fits for phase in phases):
                more = f" and {parts} times the micro_batches" if parts > 1 else ""
                return f'compute.remat = "{policy}"{more}', other
        except ConfigError:
            return None  # the rows do not divide further
    return None


def largest_rows(config: Config, number: int, where: Slice) -> dict[str, int]:
    """For each rematerialisation policy the most rows per chip, in powers of two per device,
    whose step of this phase fits (0: none does).

    From above, because the compiler refuses within seconds what it would compile in a minute.
    """
    found = {}
    for policy in LADDER:
        rows = MOST_ROWS
        while rows:
            phase = dataclasses.replace(
                config.phases[number], rows=rows * where.devices, gradient_accumulation_steps=1
            )
            other = dataclasses.replace(_under(config, policy), phases=(phase,))
            if _look(other, phase, where).fits:
                break
            rows //= 2
        found[policy] = rows * where.chip.devices
    return found


def _under(config: Config, policy: str) -> Config:
    compute = dataclasses.replace(config.compute, remat=policy)  # type: ignore[arg-type]
    return dataclasses.replace(config, compute=compute)


def table(told: dict[str, Any]) -> str:
    """The plan as lines; the last one begins with "fits" or "does not fit"."""
    lines = [
        told["described"],
        f"parameters {told['parameters']:,}, rematerialisation {told['remat']}, passes "
        f"{'written out' if told['unroll'] else 'scanned'}, "
        + ("compiled for the slice" if told["compiled"] else "by formula, not compiled"),
    ]
    if told["whole"]:
        each = ", ".join(f"{path} {size / 1e6:.3g} MB" for path, size in told["whole"].items())
        lines.append(f"shared out to {told['fsdp']} devices, but for what does not divide: {each}")
    for phase in told["phases"]:
        limits = phase["bound"]
        lines += [
            f"phase {phase['phase']}: {phase['steps']:,} steps of {phase['rows']} x "
            f"{phase['sequence_length']} ({phase['rows_per_chip']:g} rows a chip"
            + (f", {phase['micro_batches']} micro-batches)" if phase["micro_batches"] > 1 else ")"),
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
        if cycles := phase["cycles"]:
            lines.append(
                f"  cycles      {cycles['cycles']:.4g} by the compiler's estimate, without "
                "collectives and fused kernels"
                + (
                    f": {cycles['seconds'] * 1e3:.4g} ms, MFU at most {cycles['mfu']:.0%}"
                    if cycles["seconds"]
                    else ""
                )
            )
        lines += [
            f"  sends       {one['count']} x {one['kind']} {','.join(one['types'])}, "
            f"{one['bytes'] / 1e6:.4g} MB, {'inside' if one['in_loop'] else 'outside'} the loop"
            for one in phase["collectives"]
        ]
    if most := told.get("largest_rows_per_chip"):
        each = ", ".join(f"{policy} {rows}" for policy, rows in most.items())
        lines.append(f"most rows a chip (phase 0): {each}")
    if bought := told.get("bought"):
        lines.append(budget.sentence(bought))
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


def _whole(config: Config) -> dict[str, int]:
    """Bytes of each parameter that fsdp leaves whole on every device, by path."""
    if config.parallel.fsdp == 1:
        return {}
    sizes = {name: getattr(config.parallel, name) for name in ("slice", "data", "fsdp", "tensor")}
    return unsharded(abstract_params(config.model), sizes)


def _cycles(found: Compiled, work: float, where: Slice) -> dict[str, float | None] | None:
    """The compiler's estimate of a step; seconds and the MFU that they allow where the clock of
    its cycles is known."""
    if not found.cycles:
        return None
    seconds = found.cycles / where.chip.clock if where.chip.clock else None
    mfu = work / where.chips / where.chip.flops / seconds if seconds else None
    return {"cycles": found.cycles, "seconds": seconds, "mfu": mfu}


def grouped(found: Sequence[Collective]) -> list[dict[str, Any]]:
    """Operations of one kind, type and place, counted and added up, largest first."""
    count: Counter[Any] = Counter()
    size: Counter[Any] = Counter()
    for one in found:
        key = (one.kind, one.types, one.in_loop)
        count[key] += 1
        size[key] += one.bytes
    return [
        {"kind": kind, "types": types, "in_loop": in_loop, "count": count[kind, types, in_loop],
         "bytes": bytes_}
        for (kind, types, in_loop), bytes_ in size.most_common()
    ]  # fmt: skip
