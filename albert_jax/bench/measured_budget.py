"""Plans for a budget of hours on this machine, found by measuring."""

from __future__ import annotations

import functools

import jax

from albert_jax import configfile
from albert_jax.bench import step
from albert_jax.config import Config
from albert_jax.model import flops
from albert_jax.plan import budget


def choose(hours: float) -> tuple[str, Config, list[float]]:
    """Preset, config and seconds per step of each phase: the largest that is worth it here.

    A model whose steps would take too long at the rate of a bare matrix product is not tried.
    """
    matmul_rate, devices = functools.cache(step.matmul_rate), jax.device_count()

    def max_tokens_per_second(config: Config) -> float:
        work = sum(phase.steps * flops.per_step(config.model, phase) for phase in config.phases)
        tokens = config.steps * budget.tokens_per_step(config)
        return tokens / work * matmul_rate(config.compute.dtype) * devices

    names = [*budget.CPU_PRESETS, *budget.ACCELERATOR_PRESETS]
    while True:
        name, config = budget.choose(hours * 3600, devices, max_tokens_per_second, names)
        measured, preset = step.seconds_per_step(config), configfile.load(name)
        total = sum(phase.steps * s for phase, s in zip(config.phases, measured, strict=True))
        rate = config.steps * budget.tokens_per_step(config) / total
        tokens = budget.tokens_in(hours * 3600, rate)
        if name == names[0] or budget.is_worth(preset, tokens):
            # Measured, the budget pays for fewer tokens than the bound promised: fewer rows, and
            # steps that are shorter in proportion.
            scaled = budget.scaled(name, preset, devices, tokens)
            ratio = scaled.phases[0].batch_size / config.phases[0].batch_size
            return name, scaled, [s * ratio for s in measured]
        names = names[: names.index(name)]
