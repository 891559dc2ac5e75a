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

CPU_PRESETS = ("tiny", "small", "medium")
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


def tokens_in(seconds: float, tokens_per_second: float) -> float:
    """Tokens that a budget pays for, less the reserve."""
    return seconds * (1 - RESERVE) * tokens_per_second


def is_worth(preset: Config, tokens: float) -> bool:
    """Returns whether `tokens` are at least MIN_SHARE of those that the preset reads.

    Of the presets of version 2, which are longer, the paper's 125,000 steps are counted.
    """
    own = min(preset.steps, PAPER_STEPS) * tokens_per_step(preset)
    return tokens >= MIN_SHARE * own


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
    candidates = list(names)
    while True:
        name = candidates.pop()
        config = configfile.load(name)
        tokens = tokens_in(seconds, tokens_per_second(config))
        if not candidates or is_worth(config, tokens):
            return name, scaled(name, config, devices, tokens)


def choose_for_slice(hours: float, where: Slice, efficiency: float) -> tuple[str, Config]:
    """The choice for a slice, by the estimate at `efficiency` of its peak."""

    def tokens_per_second(config: Config) -> float:
        seconds = sum(
            phase.steps * estimate.bound(config, phase, where, None).expected(efficiency)
            for phase in config.phases
        )
        return tokens_per_step(config) * config.steps / seconds

    return choose(hours * 3600, where.devices, tokens_per_second, ACCELERATOR_PRESETS)


def scaled(name: str, config: Config, devices: int, tokens: float) -> Config:
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
        fitting = phase.batch_size // phase.gradient_accumulation_steps // PRESET_DEVICES[name]
        steps = max(1, rows // max(1, fitting))
        phases.append(
            dataclasses.replace(phase, batch_size=rows * devices, gradient_accumulation_steps=steps)
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
    """The result of a budget as plain JSON; `out` is the file of the config."""
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
