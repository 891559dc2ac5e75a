"""`albert-jax plan`: the command that plans a run on a slice, or spends a budget of time."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

from albert_jax import configfile, files
from albert_jax.commands.options import File, check_pretraining
from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.plan.chips import GIB

EFFICIENCY = 0.5
"""A cautious share of the peak, of which well-tuned trainings reach more."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Compile a run for a slice that is not here: memory, time, cost; or spend a budget.

    The last line begins with "fits" or "does not fit" (exit code 2). With --hours or --chip-hours
    the steps of --config are chosen so that the run takes that long; without --config the preset,
    batch size and learning rate are chosen too. --out gets the resulting config.
    """

    config: File | None = None
    """Preset (base-v2), TOML file (config show writes one with other fields), or the folder of a
    run; optional with a budget."""
    slice: str
    """Google's name (v5e-256, v5p-128, v6e-64, 7x-4x4x4), h100-8 or h200-8; "here" measures this
    machine (only with a budget)."""
    efficiency: float = EFFICIENCY
    """Share of the chips' peak that hours and cost assume."""
    price: float = 0.0
    """Price of a chip-hour, for the cost."""
    largest: bool = False
    """Also search for the most rows per chip that fit under each rematerialization policy."""
    hours: float | None = None
    """Budget in hours."""
    chip_hours: float | None = None
    """Budget in chip-hours."""
    out: File | None = None
    """File for the config that the budget buys."""
    json: bool = False
    """One JSON object before the last line instead of a table."""

    def run(self) -> int:
        """Prints to stdout; returns 2 if the run does not fit."""
        self._check()
        if self.slice == "here":
            return self._measure_here()
        # Nothing is computed on a device, and no device must be taken from another program.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from albert_jax.plan import budget, slices
        from albert_jax.plan import plan as planning

        where = slices.find(self.slice)
        hours = self.hours if self.chip_hours is None else self.chip_hours / where.chips
        if self.config is not None:
            name, config = self.config, self._given(self.config)
        else:
            assert hours is not None
            name, config = budget.choose_for_slice(hours, where, self.efficiency)
        steps, nearest = planning.compile_steps(config, where), None
        if not all(step.fits for step in steps):
            nearest = planning.nearest_that_fits(config, where)
            if nearest and self.config is None:
                config, nearest = nearest[1], None
                steps = planning.compile_steps(config, where)
        options: dict[str, Any] = {"efficiency": self.efficiency, "price": self.price}
        figures = planning.plan(config, where, steps=steps, **options)
        if hours is not None and figures["fits"]:
            seconds = [phase["expected_step"] for phase in figures["phases"]]
            config = budget.with_steps_for(config, seconds, hours * 3600)
            figures = planning.plan(config, where, steps=steps, **options)
            figures["bought"] = self._write(name, config)
        figures["nearest"] = nearest and nearest[0]
        if self.largest:
            figures["largest_rows_per_chip"] = planning.largest_rows_per_chip(config, where)
        print(as_json(figures) if self.json else table(figures))
        print(verdict(figures))
        return 0 if figures["fits"] else ConfigError.exit_code

    def _check(self) -> None:
        budgets = [value for value in (self.hours, self.chip_hours) if value is not None]
        if len(budgets) > 1:
            raise ConfigError("--hours and --chip-hours exclude each other: give one")
        if any(not 0 < value < math.inf for value in budgets):
            raise ConfigError(f"a budget of {budgets[0]} hours: give a number above 0")
        if not 0 < self.efficiency <= 1:
            raise ConfigError(f"--efficiency {self.efficiency}: give a share above 0, at most 1")
        if bool(budgets) != bool(self.out):
            raise ConfigError(
                "--out FILE gets the config that a budget buys: give both, or neither "
                "(--hours, --chip-hours)"
            )
        if self.config is None and not budgets:
            raise ConfigError("give --config, or a budget (--hours or --chip-hours) that chooses")
        if self.slice == "here":
            if self.hours is None:
                raise ConfigError("--slice here measures for a budget: give --hours and --out")
            if self.largest or self.price or self.efficiency != EFFICIENCY:
                raise ConfigError(
                    "--slice here measures this machine: leave out --efficiency, --price and "
                    "--largest"
                )

    def _measure_here(self) -> int:
        from albert_jax.bench import measured_budget, step
        from albert_jax.plan import budget

        assert self.hours is not None
        if self.config is None:
            name, config, seconds = measured_budget.choose(self.hours)
        else:
            name, config = self.config, self._given(self.config)
            seconds = step.seconds_per_step(config)
        config = budget.with_steps_for(config, seconds, self.hours * 3600)
        bought = self._write(name, config)
        print(json.dumps({"bought": bought}) if self.json else budget.sentence(bought))
        print("fits: it was measured on this machine")
        return 0

    def _write(self, name: str, config: Config) -> dict[str, Any]:
        """Writes the config that the budget buys; returns what was bought."""
        from albert_jax.plan import budget

        assert self.out is not None
        files.write(self.out, configfile.dumps(config).encode())
        return budget.summary(name, config, self.out)

    def _given(self, name: str) -> Config:
        """The config of --config, checked."""
        config = configfile.load(name)
        check_pretraining(config, name)
        config.validate()
        return config


def as_json(figures: dict[str, Any]) -> str:
    """The plan as JSON, in which an unknown number of bytes is null."""
    phases = [
        {name: None if value == math.inf else value for name, value in phase.items()}
        for phase in figures["phases"]
    ]
    return json.dumps(figures | {"phases": phases})


def table(figures: dict[str, Any]) -> str:
    """The plan as lines of text, without the verdict."""
    loop = "unrolled" if figures["unroll"] else "scanned"
    origin = "compiled for the slice" if figures["compiled"] else "by formula, not compiled"
    lines = [
        figures["described"],
        f"parameters {figures['parameters']:,}, rematerialization {figures['remat']}, layers "
        f"{loop}, {origin}",
    ]
    if unsharded := figures["unsharded"]:
        sizes = ", ".join(f"{path} {size / 1e6:.3g} MB" for path, size in unsharded.items())
        lines.append(
            f"sharded over {figures['fsdp']} devices, except for what does not divide: {sizes}"
        )
    for phase in figures["phases"]:
        lines += _phase_lines(phase, figures["efficiency"])
    if rows := figures.get("largest_rows_per_chip"):
        listed = ", ".join(f"{policy} {count}" for policy, count in rows.items())
        lines.append(f"most rows per chip (phase 0): {listed}")
    if bought := figures.get("bought"):
        from albert_jax.plan import budget

        lines.append(budget.sentence(bought))
    cost = f", cost {figures['cost']:,.2f}" if figures["cost"] is not None else ""
    lines.append(
        f"time {figures['hours']:.4g} hours, {figures['chip_hours']:,.4g} chip-hours{cost}"
    )
    return "\n".join(lines)


def _phase_lines(phase: dict[str, Any], efficiency: float) -> list[str]:
    limits, accumulation = phase["bound"], phase["gradient_accumulation_steps"]
    accumulated = f", {accumulation} gradient accumulation steps" if accumulation > 1 else ""
    lines = [
        f"phase {phase['phase']}: {phase['steps']:,} steps of {phase['batch_size']} x "
        f"{phase['sequence_length']} ({phase['rows_per_chip']:g} rows per chip{accumulated})",
        f"  memory      {phase['memory'] / GIB:.2f} of {phase['limit'] / GIB:.2f} GiB per device "
        f"(state and batch {phase['arguments'] / GIB:.2f}, temporary "
        f"{phase['temporary'] / GIB:.2f})",
        f"  FLOPs       {phase['flops']:.4g} per step",
        f"  bound       {limits['step'] * 1e3:.4g} ms: compute {limits['compute'] * 1e3:.4g}, "
        f"memory {limits['memory'] * 1e3:.4g}, interconnect {limits['interconnect'] * 1e3:.4g}",
        f"  expected    {phase['expected_step'] * 1e3:.4g} ms: at {efficiency:.0%} of the peak, or "
        "the compiler's estimate where that is more",
    ]
    if cycles := phase["cycles"]:
        line = (
            f"  cycles      {cycles['cycles']:.4g} by the compiler's estimate, without collectives "
            "and fused kernels"
        )
        if cycles["seconds"]:
            line += f": {cycles['seconds'] * 1e3:.4g} ms, MFU at most {cycles['mfu']:.0%}"
        lines.append(line)
    return lines + [
        f"  sends       {op['count']} x {op['kind']} {','.join(op['types'])}, "
        f"{op['bytes'] / 1e6:.4g} MB, {'inside' if op['in_loop'] else 'outside'} the loop"
        for op in phase["collectives"]
    ]


def verdict(figures: dict[str, Any]) -> str:
    """The last line: whether the run fits, and what would help if it does not."""
    worst = max(figures["phases"], key=lambda phase: phase["memory"] / phase["limit"])
    excess = (worst["memory"] - worst["limit"]) / GIB
    if figures["fits"]:
        return f"fits: {figures['slice']} has {-excess:.2f} GiB per device to spare"
    size = f"{excess:.2f} GiB" if math.isfinite(excess) else "an unknown number of bytes"
    nearest = figures["nearest"]
    fix = f"it fits with {nearest}" if nearest else "use a larger slice or fewer rows"
    return f"does not fit: phase {worst['phase']} needs {size} per device too much; {fix}"
