"""Chooses preset, batch size, learning rate and steps for a budget of time.

The preset is the largest one for which the budget pays at least half of its own tokens: below
that a smaller model learns more. The batch size follows the tokens, so that the steps stay the
paper's 125,000, between one row per device and the paper's 4096 rows; the learning rate follows
the square root of the batch size (docs/batch-rate-warmup.md). The CPU presets keep their batch
size and learning rate, whose useful range is narrow. Gradient accumulation keeps the memory of a
device at what it is on the preset's own hardware.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.plan import estimate
from albert_jax.plan.slices import Slice

PAPER_STEPS, PAPER_BATCH_SIZE, PAPER_LEARNING_RATE = 125_000, 4096, 0.00176
MIN_SHARE = 0.5
"""Share of a preset's own tokens that a budget must pay for."""
RESERVE = 0.05
"""Share of a budget that is kept for evaluations, checkpoints and compilation."""
MIN_STEPS = 10

CPU_PRESETS = ("tiny", "small")
ACCELERATOR_PRESETS = ("base-one-chip", "large-eight-chips", "xlarge-v2", "xxlarge-v2")
"""In the order of their size, as are the CPU presets."""
PRESET_DEVICES = {
    "base-one-chip": 1, "large-eight-chips": 8, "xlarge-v2": 256, "xxlarge-v2": 256,
}  # fmt: skip
"""Devices for which the batch size and gradient accumulation of a preset are made."""


def tokens_per_step(config: Config) -> float:
    """Mean over the phases, weighted by their steps; padding counts."""
    tokens = sum(phase.steps * phase.batch_size * phase.sequence_length for phase in config.phases)
    return tokens / config.steps


def _own_tokens(config: Config) -> float:
    """Tokens of a preset, at most those of the paper's 125,000 steps (version 2 has more)."""
    return min(config.steps, PAPER_STEPS) * tokens_per_step(config)


def choose(
    seconds: float,
    devices: int,
    tokens_per_second: Callable[[Config], float],
    names: Sequence[str],
) -> tuple[str, Config]:
    """Name and config of the largest preset that the budget pays for, else of the smallest.

    `names` are the candidates from small to large. The steps of the config are not cut to the
    budget yet; see `with_steps_for`.
    """
    for name in reversed(names):
        config = configfile.load(name)
        tokens = tokens_per_second(config) * seconds * (1 - RESERVE)
        if tokens >= MIN_SHARE * _own_tokens(config) or name == names[0]:
            return name, _scaled(name, config, devices, tokens)
    raise ConfigError("no presets to choose from")


def choose_for_slice(hours: float, where: Slice, efficiency: float) -> tuple[str, Config]:
    """The choice for a slice, by the estimate at `efficiency` of its peak."""

    def tokens_per_second(config: Config) -> float:
        seconds = sum(
            phase.steps * estimate.bound(config, phase, where, None).expected(efficiency)
            for phase in config.phases
        )
        return tokens_per_step(config) * config.steps / seconds

    return choose(hours * 3600, where.devices, tokens_per_second, ACCELERATOR_PRESETS)


def choose_by_measuring(
    seconds: float,
    devices: int,
    max_tokens_per_second: Callable[[Config], float],
    measure: Callable[[str, Config], list[float]],
) -> tuple[str, Config, list[float]]:
    """The choice for the machine at hand: name, config and seconds per step of each phase.

    `max_tokens_per_second` is a rate that the machine cannot exceed, so that no model is measured
    that is far too large for it; `measure` returns the seconds per step of each phase.
    """
    names = [*CPU_PRESETS, *ACCELERATOR_PRESETS]
    while True:
        name, config = choose(seconds, devices, max_tokens_per_second, names)
        measured = measure(name, config)
        total = sum(phase.steps * s for phase, s in zip(config.phases, measured, strict=True))
        tokens = config.steps * tokens_per_step(config) * seconds * (1 - RESERVE) / total
        preset = configfile.load(name)
        if tokens >= MIN_SHARE * _own_tokens(preset) or name == names[0]:
            # Measured, the budget pays for fewer tokens than the bound promised: fewer rows, and
            # steps that are shorter in proportion.
            scaled = _scaled(name, preset, devices, tokens)
            ratio = scaled.phases[0].batch_size / config.phases[0].batch_size
            return name, scaled, [s * ratio for s in measured]
        names = names[: names.index(name)]


def _scaled(name: str, config: Config, devices: int, tokens: float) -> Config:
    """The preset with the batch size and learning rate for `tokens` tokens on `devices` devices."""
    if name in CPU_PRESETS:
        return config
    mean_length = tokens_per_step(config) / config.phases[0].batch_size
    wanted = max(1.0, tokens / (PAPER_STEPS * mean_length * devices))
    rows = 2 ** round(math.log2(wanted))  # per device
    while rows > 1 and rows * devices > PAPER_BATCH_SIZE:
        rows //= 2
    phases = []
    for phase in config.phases:
        accumulation = phase.gradient_accumulation_steps
        fitting = max(1, phase.batch_size // accumulation // PRESET_DEVICES[name])
        phases.append(
            dataclasses.replace(
                phase,
                batch_size=rows * devices,
                gradient_accumulation_steps=max(1, rows // fitting),
            )
        )
    scale = math.sqrt(rows * devices / PAPER_BATCH_SIZE)
    learning_rate = float(f"{PAPER_LEARNING_RATE * scale:.3g}")
    optimizer = dataclasses.replace(config.optimizer, learning_rate=learning_rate)
    return dataclasses.replace(config, phases=tuple(phases), optimizer=optimizer)


def with_steps_for(config: Config, seconds_per_step: Sequence[float], seconds: float) -> Config:
    """The config with as many steps as `seconds` pay for, less the reserve.

    All phases and the warm-up change in proportion; `seconds_per_step` has one entry per phase.
    Raises ConfigError for fewer than MIN_STEPS.
    """
    total = sum(phase.steps * s for phase, s in zip(config.phases, seconds_per_step, strict=True))
    share = seconds * (1 - RESERVE) / total
    phases = tuple(
        dataclasses.replace(phase, steps=max(1, math.floor(phase.steps * share)))
        for phase in config.phases
    )
    steps = sum(phase.steps for phase in phases)
    if steps < MIN_STEPS:
        raise ConfigError(
            f"the budget buys {steps} steps of {max(seconds_per_step):.3g} s: give more, or a "
            "smaller preset"
        )
    warmup = math.floor(config.optimizer.warmup_steps * steps / config.steps)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=warmup)
    return dataclasses.replace(config, phases=phases, optimizer=optimizer)


def summary(name: str, config: Config, out: str) -> dict[str, Any]:
    """What a budget bought, as plain JSON; `out` is the file of the config."""
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
    """The summary as one sentence."""
    steps = ", then ".join(
        f"{p['steps']:,} steps of {p['batch_size']} x {p['sequence_length']}"
        for p in bought["phases"]
    )
    return (
        f"the budget buys {bought['preset']}: {steps} ({bought['tokens']:.3g} tokens) at a "
        f"learning rate of {bought['learning_rate']:g} after {bought['warmup_steps']:,} steps of "
        f"warm-up: {bought['out']}"
    )
