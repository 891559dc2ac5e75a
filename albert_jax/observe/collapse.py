"""Says in words when a model has stopped learning.

Small encoders with the published settings often predict word frequencies and nothing else
forever: the MLM loss stays at its unigram value, and if the learning rate is too high the SOP
loss stays at ln 2 too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from albert_jax.config import ModelConfig

WARMUPS = 3
"""A run is judged after this many times its warm-up..."""

MIN_STEPS = 300
"""... and after at least this many steps."""

WINDOW = 8
"""Number of training rows whose mean is judged, because single rows are noisy."""

MLM_MARGIN = 0.12
"""An MLM loss less than this many nats below the unigram value counts as stuck."""

SOP_MARGIN = 0.01
"""A SOP loss less than this many nats below ln 2 counts as chance."""


def diagnose(
    rows: Sequence[Mapping[str, object]],
    *,
    model: ModelConfig,
    warmup_steps: int,
    unigram_loss: float | None,
) -> str | None:
    """A message if the newest rows of metrics.jsonl show a collapsed run, else None.

    Args:
      rows: The newest rows, training and evaluation.
      model: The structure of the model.
      warmup_steps: The length of the warm-up.
      unigram_loss: The cross-entropy in nats of masked tokens under the frequencies of the
        training corpus. If it is None, the newest evaluation row that has it is used.
    """
    recent = [row for row in rows if row.get("kind", "train") == "train"][-WINDOW:]
    if len(recent) < WINDOW:
        return None
    [first] = _numbers(recent[:1], "step") or [0.0]
    if first < max(WARMUPS * warmup_steps, MIN_STEPS):
        return None
    if unigram_loss is None:
        unigram_loss = next(reversed(_numbers(rows, "unigram_loss")), None)
    mlm, sop = _mean(recent, "mlm_loss"), _mean(recent, "sop_loss")
    mlm_stuck = mlm is not None and unigram_loss is not None and mlm > unigram_loss - MLM_MARGIN
    sop_stuck = sop is not None and sop > math.log(2) - SOP_MARGIN
    reasons = []
    if mlm_stuck:
        reasons.append(
            f"MLM loss {mlm:.2f} is the unigram value {unigram_loss:.2f} (word frequencies)"
        )
    if sop_stuck and (mlm_stuck or unigram_loss is None):
        reasons.append(f"SOP loss {sop:.2f} is chance (ln 2)")
    if not reasons:
        return None
    advice = _advice(model, sop_stuck=sop_stuck)
    return f"collapsed at step {recent[-1].get('step')}: {' and '.join(reasons)}. {advice}"


def _advice(model: ModelConfig, *, sop_stuck: bool) -> str:
    # 0.02 was tuned for H = 768. The standard deviation of a sum over H inputs grows with
    # sqrt(H), so the same signal in a narrower network needs larger weights.
    scaled = 0.02 * math.sqrt(768 / model.hidden_size)
    advice = []
    if sop_stuck:
        advice.append("lower optimizer.learning_rate by half or more")
    if model.hidden_size < 768 and model.initializer_range < 0.9 * scaled:
        advice.append(
            f"set model.initializer_range to {scaled:.3f} (0.02 x sqrt(768 / hidden_size); "
            f"it is {model.initializer_range:g})"
        )
    elif model.initializer_range > 1.5 * scaled:
        advice.append(
            f"lower model.initializer_range from {model.initializer_range:g} to {scaled:.3f}"
        )
    advice.append("begin with a phase of shorter rows (sequence_length 32)")
    if not sop_stuck:
        advice.append("lower optimizer.learning_rate if the loss was better before")
    return "Start anew and " + ", ".join(advice)


def _mean(rows: Sequence[Mapping[str, object]], key: str) -> float | None:
    values = _numbers(rows, key)
    return sum(values) / len(values) if values else None


def _numbers(rows: Sequence[Mapping[str, object]], key: str) -> list[float]:
    values = [row.get(key) for row in rows]
    return [float(value) for value in values if isinstance(value, int | float)]
