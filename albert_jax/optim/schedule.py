"""Learning rates as plain functions of the step, in numpy: the same number everywhere."""

from __future__ import annotations

import numpy as np

from albert_jax.config import Config


def polynomial(
    step: int, *, peak: float, steps: int, warmup_steps: int = 0, end: float = 0.0
) -> float:
    """The original's learning rate at a step counted from 0 (optimization.py, create_optimizer).

    The decay runs from step 0 and not from the end of the warm-up, so the learning rate jumps
    down where the warm-up ends. It is computed in float32 like the original's graph: near the end
    1 - step / steps loses digits.
    """
    if step < warmup_steps:
        return float(np.float32(peak) * (np.float32(step) / np.float32(warmup_steps)))
    remaining = np.float32(1.0) - np.float32(min(step, steps)) / np.float32(steps)
    return float(np.float32(peak - end) * remaining + np.float32(end))


def warmup_steps(config: Config) -> int:
    """Steps at the start of a run in which the learning rate rises, by its first phase."""
    first = config.phases[0]
    rising = {"run": config.optimizer.warmup_steps, "warmup": first.steps}
    return rising.get(first.schedule, 0)


def learning_rate(config: Config, step: int) -> float:
    """The learning rate of a step of the run (from 0), by the schedule that its phase names.

    "run" is the run's polynomial schedule at this step of the whole run; "warmup" is linear from
    0 to the peak over this phase; "constant" is the peak; "decay" is linear from the peak to the
    end learning rate over this phase.
    """
    optimizer = config.optimizer
    peak, end = optimizer.learning_rate, optimizer.end_learning_rate
    number, step_in_phase = config.phase_at(step)
    phase = config.phases[number]
    progress = min(step_in_phase / phase.steps, 1.0)
    match phase.schedule:
        case "warmup":
            return peak * progress
        case "constant":
            return peak
        case "decay":
            return peak - (peak - end) * progress
    return polynomial(
        step, peak=peak, steps=config.steps, warmup_steps=optimizer.warmup_steps, end=end
    )
