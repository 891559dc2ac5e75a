"""`albert-jax bench`, `plan` and `doctor`: the verbs about machines."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.observe.doctor import Finding
    from albert_jax.plan.slices import Slice

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
        from albert_jax.plan import report, slices

        where = slices.find(self.slice)
        hours = self.hours if self.chip_hours is None else self.chip_hours / where.chips
        name, config = self._config() if self.config else self._chosen(where, hours or 0.0)
        found = report.look(config, where)
        nearest = None
        if not all(one.fits for one in found):
            nearest = report.nearest_that_fits(config, where)
            if nearest and self.config is None:
                config = nearest[1]
                found = report.look(config, where)
        told = report.plan(
            config, where, found=found, efficiency=self.efficiency, price=self.price
        )
        told["nearest"] = nearest and nearest[0]
        if hours is not None and told["fits"]:
            seconds = [phase["expected_step"] for phase in told["phases"]]
            config, bought = self._spend(name, config, seconds, hours)
            told = report.plan(
                config, where, found=found, efficiency=self.efficiency, price=self.price
            )
            told["bought"] = bought
        if self.largest:
            told["largest_rows_per_chip"] = report.largest_rows(config, 0, where)
        if self.json:
            print(json.dumps(told))
            print(report.verdict(told))
        else:
            print(report.table(told))
        return 0 if told["fits"] else ConfigError.exit_code

    def _config(self) -> tuple[str, Config]:
        assert self.config is not None
        config = self._changed(configfile.load(self.config))
        config.validate()
        return self.config, config

    def _changed(self, config: Config) -> Config:
        changes = {"rows": self.rows, "micro_batches": self.micro_batches}
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

    def _chosen(self, where: Slice, hours: float) -> tuple[str, Config]:
        from albert_jax.plan import budget, estimate

        def rate(config: Config) -> float:
            steps = [
                estimate.bound(config, phase, where).expected(self.efficiency) * phase.steps
                for phase in config.phases
            ]
            return budget.tokens_per_step(config) * config.steps / sum(steps)

        name, config = budget.choose(hours * 3600, where.devices, rate, budget.LARGE)
        return name, self._changed(config)

    def _here(self) -> int:
        if self.hours is None:
            raise ConfigError("--slice here measures for a budget: give --hours and --out")
        import jax

        from albert_jax import bench
        from albert_jax.observe import flops
        from albert_jax.plan import budget

        product = functools.cache(bench.product_rate)
        devices = jax.device_count()

        def limit(config: Config) -> float:
            work = sum(p.steps * flops.per_step(config.model, p) for p in config.phases)
            tokens = config.steps * budget.tokens_per_step(config)
            return tokens / work * product(config.compute.dtype) * devices

        def measured(name: str, config: Config) -> list[float]:
            phases = range(len(config.phases))
            each = [bench.adjusted(config, phase=i, rows=None, length=None) for i in phases]
            return [bench.measure(one, name, steps=5).step for one in each]

        if self.config is not None:
            name, config = self._config()
            seconds = measured(name, config)
        else:
            name, config, seconds = budget.measured(self.hours * 3600, devices, limit, measured)
        _, bought = self._spend(name, config, seconds, self.hours)
        print(json.dumps({"bought": bought}) if self.json else budget.sentence(bought))
        print("fits: it was measured on this machine")
        return 0

    def _spend(
        self, name: str, config: Config, seconds: list[float], hours: float
    ) -> tuple[Config, dict[str, Any]]:
        from albert_jax import files
        from albert_jax.plan import budget

        assert self.out is not None
        config = budget.within(config, seconds, hours * 3600)
        files.write(self.out, configfile.dumps(config).encode())
        return config, budget.told(name, config, self.out)


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
        from albert_jax.observe import doctor

        findings = doctor.look(self.out, clock_url=self.clock_url)
        if self.data:
            findings += [self._input(number) for number in range(len(self._config().phases))]
        print(doctor.table(findings))
        return 0 if all(finding.ok for finding in findings) else ConfigError.exit_code

    def _config(self) -> Config:
        config = configfile.load(self.config)
        return dataclasses.replace(
            config, data=dataclasses.replace(config.data, prepared=self.data)
        )

    def _input(self, number: int) -> Finding:
        import time

        import numpy as np

        from albert_jax import bench
        from albert_jax.data import pipeline
        from albert_jax.data.corpus import Corpus
        from albert_jax.data.rows import RowMaker
        from albert_jax.observe.doctor import Finding

        config = self._config()
        phase = config.phases[number]
        corpora = [Corpus.open(folder, "train") for folder in self.data]
        maker = RowMaker(
            corpora, corpora[0].vocabulary(), phase, seed=config.seed, phase_index=number
        )
        made = pipeline.batches(maker, 0, 1000, np.arange(phase.rows), config.data.workers)
        next(made)  # the first one plans the epoch
        # More than are made ahead, or nothing but a queue would be measured.
        count, began = 4 * pipeline.AHEAD * max(1, config.data.workers), time.perf_counter()
        for _ in range(count):
            next(made)
        batch = (time.perf_counter() - began) / count
        step = bench.measure(
            bench.adjusted(config, phase=number, rows=None, length=None), self.config, steps=5
        ).step
        text = (
            f"phase {number}: a batch of {phase.rows} x {phase.sequence_length} takes "
            f"{batch * 1e3:.3g} ms to make, a step {step * 1e3:.3g} ms"
        )
        if batch > step:
            text += "; raise data.workers, or spread the run over more hosts"
        return Finding("input", batch <= step, text)
