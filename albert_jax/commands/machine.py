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
        from albert_jax.bench import step

        step.run(
            self.config, configfile.load(self.config), phase=self.phase, rows=self.rows,
            length=self.length, steps=self.steps, as_json=self.json,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Compile a run for a slice that is not here: memory, time, cost; or spend a budget.

    The last line begins with "fits" or "does not fit" (exit code 2). With --hours or --chip-hours
    it is the other way round: the steps of --config are chosen so that the run takes that long,
    without --config the preset, rows and rate too, and --out gets the config.
    """

    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Preset (base-v2), TOML file, or the folder of a run; a budget can choose for itself."""
    slice: str
    """Google's name (v5e-256, v5p-128, v6e-64, 7x-4x4x4), h100-8, h200-8; "here" measures this
    machine (with a budget only)."""
    remat: str | None = None
    """Rematerialisation instead of the config's: none, dots or full."""
    unroll: bool | None = None
    """Write the passes out, or scan them, instead of what the config says."""
    rows: int | None = None
    """Rows of a step instead of each phase's."""
    gradient_accumulation_steps: int | None = None
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
        budget = self.hours is not None or self.chip_hours is not None
        if self.hours is not None and self.chip_hours is not None:
            raise ConfigError("--hours and --chip-hours exclude each other: give one")
        if not all(given is None or given > 0 for given in (self.hours, self.chip_hours)):
            raise ConfigError("a budget must be above 0")
        if budget and not self.out:
            raise ConfigError("a budget needs --out FILE for the config that it buys")
        if self.config is None and not budget:
            raise ConfigError("give --config, or a budget (--hours or --chip-hours) that chooses")
        if self.slice == HERE:
            return self._here()
        # Nothing here is computed on a device, and none must be taken from another program.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from albert_jax.plan import budget as budgets
        from albert_jax.plan import report, slices

        where = slices.find(self.slice)
        hours = self.hours if self.chip_hours is None else self.chip_hours / where.chips
        if self.config is not None:
            name, config = self.config, self._config()
        else:
            assert hours is not None
            name, config = budgets.choose_for_slice(hours, where, self.efficiency)
            config = self._changed(config)
        config, told = report.answer(
            name, config, where, efficiency=self.efficiency, price=self.price,
            adapt=self.config is None, hours=hours, out=self.out or "",
        )  # fmt: skip
        if self.largest:
            told["largest_rows_per_chip"] = report.largest_rows(config, 0, where)
        if self.json:
            print(json.dumps(told))
            print(report.verdict(told))
        else:
            print(report.table(told))
        return 0 if told["fits"] else ConfigError.exit_code

    def _config(self) -> Config:
        assert self.config is not None
        config = self._changed(configfile.load(self.config))
        config.validate()
        return config

    def _changed(self, config: Config) -> Config:
        changes = {
            "batch_size": self.rows,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        phases = tuple(dataclasses.replace(phase, **changes) for phase in config.phases)
        config = dataclasses.replace(config, phases=phases)
        if self.fsdp is not None:
            parallel = dataclasses.replace(config.parallel, fsdp=self.fsdp)
            config = dataclasses.replace(config, parallel=parallel)
        if self.remat not in (None, "none", "dots", "full"):
            raise ConfigError(f"--remat {self.remat}: give none, dots or full")
        changes = {"remat": self.remat, "unroll": self.unroll}
        changes = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(config, compute=dataclasses.replace(config.compute, **changes))

    def _here(self) -> int:
        if self.hours is None:
            raise ConfigError("--slice here measures for a budget: give --hours and --out")
        from albert_jax.bench import budget as here
        from albert_jax.plan import budget as budgets

        assert self.out is not None
        if self.config is None:
            name, config, seconds = here.choose(self.hours)
        else:
            name, config = self.config, self._config()
            seconds = here.seconds_per_step(name, config)
        _, bought = budgets.spend(name, config, seconds, self.hours, self.out)
        print(json.dumps({"bought": bought}) if self.json else budgets.sentence(bought))
        print("fits: it was measured on this machine")
        return 0


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at this machine: devices, versions, rights and free disk of a folder, clock.

    With --data it also measures whether batches are made as fast as --config's steps take them.
    """

    out: Annotated[str, tyro.conf.arg(metavar="DIR")] = "."
    """Folder or bucket (gs://...) where a run would be kept."""
    clock_url: str | None = None
    """Page whose Date header the clock is compared with (https://www.google.com)."""
    config: _File = "tiny"
    """Preset, TOML file, or the folder of a run, for --data."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """Prepared folders whose input rate is measured."""

    def run(self) -> int:
        """Prints to stdout; 2 if something is not ok."""
        from albert_jax.commands import doctor_checks as doctor

        findings = doctor.look(self.out, clock_url=self.clock_url)
        if self.data:
            from albert_jax.bench import input as input_rate

            config = configfile.load(self.config)
            data = dataclasses.replace(config.data, prepared=self.data)
            findings += input_rate.look(dataclasses.replace(config, data=data), self.config)
        print(doctor.table(findings))
        return 0 if all(finding.ok for finding in findings) else ConfigError.exit_code
