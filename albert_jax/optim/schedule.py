"""Learning rates as plain functions of the step, in numpy: the same number everywhere."""

from __future__ import annotations

import numpy as np

from albert_jax.config import Config


def polynomial(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup_steps: int = 0,
    start_warmup_step: int = 0,
    end: float = 0.0,
    power: float = 1.0,
) -> float:
    """The original's rate at a step counted from 0 (optimization.py, create_optimizer).

    Decay runs from step 0, not from the end of the warm-up, so the rate jumps down where the
    warm-up ends. Before `start_warmup_step` the warm-up formula gives negative rates. Computed
    in float32 like the original's graph: near the end 1 - step / steps loses digits.
    """
    since = step - start_warmup_step
    if warmup_steps and since < warmup_steps:
        return float(np.float32(peak) * (np.float32(since) / np.float32(warmup_steps)))
    left = np.float32(1.0) - np.float32(min(step, steps)) / np.float32(steps)
    return float(np.float32(peak - end) * left ** np.float32(power) + np.float32(end))


def learning_rate(config: Config, step: int) -> float:
    """The rate of step `step` (from 0), by the segment that its phase names.

    "run": the run's polynomial schedule at this step of the whole run; "warmup": linear from 0
    to the peak over this phase; "constant": the peak; "decay": linear from the peak to the end
    rate over this phase.
    """
    optimizer = config.optimizer
    number, inside = config.phase_at(step)
    phase = config.phases[number]
    share = min(inside / phase.steps, 1.0)
    if phase.schedule == "warmup":
        return optimizer.learning_rate * share
    if phase.schedule == "constant":
        return optimizer.learning_rate
    if phase.schedule == "decay":
        drop = optimizer.learning_rate - optimizer.end_learning_rate
        return optimizer.learning_rate - drop * share
    return polynomial(
        step,
        peak=optimizer.learning_rate,
        steps=config.steps,
        warmup_steps=optimizer.warmup_steps,
        end=optimizer.end_learning_rate,
    )
