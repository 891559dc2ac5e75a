"""The other way round: which preset, rows, steps and rate a budget of time buys.

The preset is the largest whose own tokens the budget pays for by half at least: below that a
smaller model learns more. Rows follow the tokens, so that the steps stay the paper's 125,000,
between one row a device and the paper's 4096; the rate follows the rows by their square root
(docs/batch-rate-warmup.md). The small presets keep their rows and rate, whose useful range is
narrow. Micro-batches keep the memory of a device what it is on the preset's own hardware.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.plan import estimate
from albert_jax.plan.slices import Slice

PAPER_STEPS, PAPER_ROWS, PAPER_RATE = 125_000, 4096, 0.00176
ENOUGH = 0.5
"""Share of a preset's own tokens that a budget must pay for."""
SPARE = 0.05
"""Share of a budget that is left to evaluations, checkpoints and compilation."""
LEAST_STEPS = 10

SMALL = ("tiny", "small")
"""Presets for a CPU."""
LARGE = ("base-one-chip", "large-eight-chips", "xlarge-v2", "xxlarge-v2")
"""Presets for accelerators, of growing size."""
OWN_DEVICES = {"base-one-chip": 1, "large-eight-chips": 8, "xlarge-v2": 256, "xxlarge-v2": 256}
"""Devices that their rows and micro-batches are made for."""


def tokens_per_step(config: Config) -> float:
    """Mean over the phases, weighted by their steps; padding counts."""
    tokens = sum(phase.steps * phase.batch_size * phase.sequence_length for phase in config.phases)
    return tokens / config.steps


def wanted(config: Config) -> float:
    """Tokens of a preset, at most those of the paper's 125,000 steps (version 2 reads more)."""
    return min(config.steps, PAPER_STEPS) * tokens_per_step(config)


def choose(
    seconds: float,
    devices: int,
    rate: Callable[[Config], float],
    names: Sequence[str],
) -> tuple[str, Config]:
    """(name, config) of the largest of the presets `names` (small to large) that is worth it.

    `rate` tells the tokens per second of a config. The smallest is taken if none is worth it.
    The config's steps are still those of its tokens by `rate`; see `within`.
    """
    for name in reversed(names):
        config = configfile.load(name)
        tokens = rate(config) * seconds * (1 - SPARE)
        if tokens >= ENOUGH * wanted(config) or name == names[0]:
            return name, config if name in SMALL else shaped(name, config, devices, tokens)
    raise ConfigError("no presets to choose from")


def choose_for_slice(hours: float, where: Slice, efficiency: float) -> tuple[str, Config]:
    """`choose` for a slice, by the estimate at `efficiency` of the peak; steps as there."""

    def rate(config: Config) -> float:
        seconds = sum(
            phase.steps * estimate.bound(config, phase, where).expected(efficiency)
            for phase in config.phases
        )
        return tokens_per_step(config) * config.steps / seconds

    return choose(hours * 3600, where.devices, rate, LARGE)


def measured(
    seconds: float,
    devices: int,
    rate: Callable[[Config], float],
    measure: Callable[[str, Config], list[float]],
) -> tuple[str, Config, list[float]]:
    """Like `choose` for a machine that is at hand: (name, config, seconds per step of each phase).

    `rate` tells tokens per second that the machine cannot exceed, so that no model is measured
    that is far too large for it; `measure` tells what it does.
    """
    names = [*SMALL, *LARGE]
    while True:
        name, config = choose(seconds, devices, rate, names)
        each = measure(name, config)
        whole = sum(phase.steps * one for phase, one in zip(config.phases, each, strict=True))
        tokens = config.steps * tokens_per_step(config) * seconds * (1 - SPARE) / whole
        preset = configfile.load(name)
        if tokens >= ENOUGH * wanted(preset) or name == names[0]:
            if name in SMALL:
                return name, config, each
            # The rate promised too much: fewer tokens, so fewer rows, and a step in proportion.
            better = shaped(name, preset, devices, tokens)
            share = better.phases[0].batch_size / config.phases[0].batch_size
            return name, better, [one * share for one in each]
        names = names[: names.index(name)]


def shaped(name: str, config: Config, devices: int, tokens: float) -> Config:
    """The preset with rows, micro-batches and rate for `tokens` tokens on `devices` devices."""
    mean_length = tokens_per_step(config) / config.phases[0].batch_size
    most = max(1.0, tokens / (PAPER_STEPS * mean_length * devices))
    each = 2 ** round(math.log2(most))
    while each > 1 and each * devices > PAPER_ROWS:
        each //= 2
    phases = []
    for phase in config.phases:
        at_once = max(1, phase.batch_size // phase.gradient_accumulation_steps // OWN_DEVICES[name])
        parts = max(1, each // at_once)
        phases.append(
            dataclasses.replace(phase, batch_size=each * devices, gradient_accumulation_steps=parts)
        )
    rate = float(f"{PAPER_RATE * math.sqrt(each * devices / PAPER_ROWS):.3g}")
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    return dataclasses.replace(config, phases=tuple(phases), optimizer=optimizer)


def within(config: Config, seconds_per_step: Sequence[float], seconds: float) -> Config:
    """The config with its steps cut or stretched so that they take `seconds` less SPARE, phases
    and warm-up in proportion; rows and rate stay. `seconds_per_step` has one entry a phase.

    Raises ConfigError if that is less than LEAST_STEPS.
    """
    whole = sum(
        phase.steps * each for phase, each in zip(config.phases, seconds_per_step, strict=True)
    )
    share = seconds * (1 - SPARE) / whole
    phases = tuple(
        dataclasses.replace(phase, steps=max(1, math.floor(phase.steps * share)))
        for phase in config.phases
    )
    steps = sum(phase.steps for phase in phases)
    if steps < LEAST_STEPS:
        raise ConfigError(
            f"the budget buys {steps} steps of {max(seconds_per_step):.3g} s: give more, or a "
            "smaller preset"
        )
    warmup = math.floor(config.optimizer.warmup_steps * steps / config.steps)
    return dataclasses.replace(
        config,
        phases=phases,
        optimizer=dataclasses.replace(config.optimizer, warmup_steps=warmup),
    )


def spend(
    name: str, config: Config, seconds_per_step: Sequence[float], hours: float, out: str
) -> tuple[Config, dict[str, Any]]:
    """Writes the config that `hours` buy (`within`) to the file `out`; returns it, and what was
    bought as plain JSON."""
    config = within(config, seconds_per_step, hours * 3600)
    files.write(out, configfile.dumps(config).encode())
    return config, _told(name, config, out)


def _told(name: str, config: Config, out: str) -> dict[str, Any]:
    return {
        "preset": name,
        "phases": [
            {"steps": p.steps, "batch_size": p.batch_size, "sequence_length": p.sequence_length}
            for p in config.phases
        ],
        "tokens": config.steps * tokens_per_step(config),
        "learning_rate": config.optimizer.learning_rate,
        "warmup_steps": config.optimizer.warmup_steps,
        "out": out,
    }


def sentence(bought: dict[str, Any]) -> str:
    """The same for people."""
    steps = ", then ".join(
        f"{p['steps']:,} steps of {p['rows']} x {p['sequence_length']}" for p in bought["phases"]
    )
    return (
        f"the budget buys {bought['preset']}: {steps} ({bought['tokens']:.3g} tokens) at a rate of "
        f"{bought['learning_rate']:g} after {bought['warmup_steps']:,} steps of warm-up: "
        f"{bought['out']}"
    )
