"""`albert-jax bench`, `plan` and `doctor`: the verbs about machines."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Annotated

import tyro

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.errors import ConfigError

_File = Annotated[str, tyro.conf.arg(metavar="FILE")]
HERE = "here"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast a config trains on the devices of this machine, with made-up rows."""

    config: _File = "tiny"
    """Preset (tiny), TOML file, or the folder of a run."""
    phase: int = 0
    """Number of its phase."""
    rows: int | None = None
    """Rows of a step instead of the phase's."""
    length: int | None = None
    """Tokens of a row instead of the phase's."""
    steps: int = 20
    """Steps that are timed."""
    json: bool = False
    """One JSON object instead of a table."""

    def run(self) -> None:
        """Prints to stdout."""
        from albert_jax import bench

        bench.run(
            self.config, configfile.load(self.config), phase=self.phase, rows=self.rows,
            length=self.length, steps=self.steps, as_json=self.json,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Compile a run for a slice that is not here: memory, time, cost; or spend a budget.

    The last line begins with "fits" or "does not fit" (exit code 2). With --hours or --chip-hours
    the steps are chosen so that the run takes that long, and --out gets the config.
    """

    config: _File
    """Preset (base-v2), TOML file, or the folder of a run."""
    slice: str
    """Google's name (v5e-256, v5p-128, v6e-64, 7x-4x4x4), h100-8, h200-8; "here" measures this
    machine (with a budget only)."""
    remat: str | None = None
    """Rematerialisation instead of the config's: none, dots or full."""
    rows: int | None = None
    """Rows of a step instead of each phase's."""
    micro_batches: int | None = None
    """Micro-batches instead of each phase's."""
    fsdp: int | None = None
    """Shards of parameters and optimizer state instead of the config's."""
    efficiency: float = 0.5
    """Share of the chips' peak that hours and cost assume."""
    price: float = 0.0
    """Price of a chip-hour, for the cost."""
    largest: bool = False
    """Also search the most rows per chip that fit under each rematerialisation."""
    hours: float | None = None
    """Budget in hours."""
    chip_hours: float | None = None
    """Budget in chip-hours."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the budget's config is written."""
    json: bool = False
    """One JSON object before the last line instead of a table."""

    def run(self) -> int:
        """Prints to stdout; 2 if the run does not fit."""
        config = self._config()
        budget = self.hours is not None or self.chip_hours is not None
        if self.hours is not None and self.chip_hours is not None:
            raise ConfigError("--hours and --chip-hours exclude each other: give one")
        if budget and not self.out:
            raise ConfigError("a budget needs --out FILE for the config that it buys")
        if self.slice == HERE:
            return self._here(config)
        # Nothing here is computed on a device, and none must be taken from another program.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from albert_jax.plan import report, slices

        where = slices.find(self.slice)
        told = report.plan(config, where, efficiency=self.efficiency, price=self.price)
        if budget:
            hours = self.hours if self.hours is not None else self.chip_hours / where.chips  # type: ignore[operator]
            self._spend(config, [phase["expected_step"] for phase in told["phases"]], hours)
        if self.largest:
            told["largest_rows_per_chip"] = report.largest_rows(config, 0, where)
        if self.json:
            print(json.dumps(told))
            print(report.verdict(told))
            return 0 if told["fits"] else ConfigError.exit_code
        lines = report.table(told).splitlines()
        if self.largest:
            most = ", ".join(f"{k} {v}" for k, v in told["largest_rows_per_chip"].items())
            lines.insert(-1, f"most rows a chip (phase 0): {most}")
        print("\n".join(lines))
        return 0 if told["fits"] else ConfigError.exit_code

    def _config(self) -> Config:
        config = configfile.load(self.config)
        changes = {"rows": self.rows, "micro_batches": self.micro_batches}
        changes = {name: value for name, value in changes.items() if value is not None}
        phases = tuple(dataclasses.replace(phase, **changes) for phase in config.phases)
        config = dataclasses.replace(config, phases=phases)
        if self.fsdp is not None:
            parallel = dataclasses.replace(config.parallel, fsdp=self.fsdp)
            config = dataclasses.replace(config, parallel=parallel)
        if self.remat is not None:
            if self.remat not in ("none", "dots", "full"):
                raise ConfigError(f"--remat {self.remat}: give none, dots or full")
            compute = dataclasses.replace(config.compute, remat=self.remat)
            config = dataclasses.replace(config, compute=compute)
        config.validate()
        return config

    def _here(self, config: Config) -> int:
        if self.hours is None:
            raise ConfigError("--slice here measures for a budget: give --hours and --out")
        from albert_jax import bench

        seconds = []
        for number in range(len(config.phases)):
            one = bench.adjusted(config, phase=number, rows=None, length=None)
            seconds.append(bench.measure(one, self.config, steps=5).step)
        self._spend(config, seconds, self.hours)
        print("fits: it was measured on this machine")
        return 0

    def _spend(self, config: Config, seconds: list[float], hours: float) -> None:
        from albert_jax import files
        from albert_jax.plan.estimate import within

        bought = within(config, seconds, hours * 3600)
        assert self.out is not None
        files.write(self.out, configfile.dumps(bought).encode())
        steps = ", ".join(
            f"{p.steps:,} steps of {p.rows} x {p.sequence_length}" for p in bought.phases
        )
        print(
            f"{hours:g} hours buy {steps} at rate {bought.optimizer.learning_rate:g}: {self.out}"
        )


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at this machine: devices, versions, rights and free disk of a folder, clock."""

    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "."
    """Folder or bucket (gs://...) where a run would be kept."""
    clock_url: str | None = None
    """Page whose Date header the clock is compared with (https://www.google.com)."""

    def run(self) -> int:
        """Prints to stdout; 2 if something is not ok."""
        from albert_jax.observe import doctor

        findings = doctor.look(self.out, clock_url=self.clock_url)
        print(doctor.table(findings))
        return 0 if all(finding.ok for finding in findings) else ConfigError.exit_code
