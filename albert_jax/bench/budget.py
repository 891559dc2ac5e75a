"""What a budget of hours buys on this machine, by measuring."""

from __future__ import annotations

import functools

import jax

from albert_jax.bench import step
from albert_jax.config import Config
from albert_jax.observe import flops
from albert_jax.plan import budget


def choose(hours: float) -> tuple[str, Config, list[float]]:
    """(preset, its config, seconds per step of each phase): the largest that is worth it here.

    A model whose steps, at the rate of a bare matrix product, would already take too long is not
    tried (plan/budget.py).
    """
    product, devices = functools.cache(step.product_rate), jax.device_count()

    def limit(config: Config) -> float:
        work = sum(phase.steps * flops.per_step(config.model, phase) for phase in config.phases)
        tokens = config.steps * budget.tokens_per_step(config)
        return tokens / work * product(config.compute.dtype) * devices

    return budget.measured(hours * 3600, devices, limit, seconds_per_step)


def seconds_per_step(name: str, config: Config) -> list[float]:
    """Median seconds of a few steps of each phase; `name` is the config's."""
    phases = range(len(config.phases))
    each = [step.adjusted(config, phase=number, rows=None, length=None) for number in phases]
    return [step.measure(one, name, steps=5).step for one in each]
