"""What a budget of hours buys on this machine, found by measuring."""

from __future__ import annotations

import functools

import jax

from albert_jax.bench import step
from albert_jax.config import Config
from albert_jax.observe import flops
from albert_jax.plan import budget


def choose(hours: float) -> tuple[str, Config, list[float]]:
    """Preset, config and seconds per step of each phase: the largest that is worth it here.

    A model whose steps would take too long at the rate of a bare matrix product is not tried.
    """
    product_rate, devices = functools.cache(step.product_rate), jax.device_count()

    def max_tokens_per_second(config: Config) -> float:
        work = sum(phase.steps * flops.per_step(config.model, phase) for phase in config.phases)
        tokens = config.steps * budget.tokens_per_step(config)
        return tokens / work * product_rate(config.compute.dtype) * devices

    return budget.choose_by_measuring(
        hours * 3600, devices, max_tokens_per_second, seconds_per_step
    )


def seconds_per_step(name: str, config: Config) -> list[float]:
    """Median seconds of a few steps of each phase; `name` is the config's name."""
    phases = [step.single_phase(config, number) for number in range(len(config.phases))]
    return [step.measure(phase, name, steps=5).step for phase in phases]
