"""Tells in words when a model has stopped learning: the commonest question of ALBERT's users.

Small encoders with the published settings predict word frequencies and nothing else for ever:
the MLM loss sits at its unigram value, and with too high a rate the SOP loss is at ln 2 too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from albert_jax.config import ModelConfig

WARM_UPS = 3
"""A run is judged once it has done this many times its warm-up..."""

LEAST_STEPS = 300
"""... and at least this many steps."""

WINDOW = 8
"""Training rows whose mean is judged; single rows are noisy."""

MLM_MARGIN = 0.12
"""Nats below the unigram value that still count as being at it."""

SOP_MARGIN = 0.01
"""Nats below ln 2 that still count as chance."""


def diagnose(
    rows: Sequence[Mapping[str, object]],
    *,
    model: ModelConfig,
    warmup_steps: int,
    unigram_loss: float | None,
) -> str | None:
    """One message if the newest rows of metrics.jsonl show a collapsed run, else None.

    `unigram_loss` is the cross-entropy in nats of masked pieces under the training corpus'
    frequencies; None: taken from the newest evaluation row that has one. Pure: the caller
    decides how often to say it.
    """
    recent = [row for row in rows if row.get("kind", "train") == "train"][-WINDOW:]
    if len(recent) < WINDOW:
        return None
    first = _number(recent[0].get("step"))
    if first is None or first < max(WARM_UPS * warmup_steps, LEAST_STEPS):
        return None
    if unigram_loss is None:
        known = [v for v in (_number(row.get("unigram_loss")) for row in rows) if v is not None]
        unigram_loss = known[-1] if known else None
    mlm, sop = _mean(recent, "mlm_loss"), _mean(recent, "sop_loss")
    mlm_stuck = mlm is not None and unigram_loss is not None and mlm > unigram_loss - MLM_MARGIN
    sop_stuck = sop is not None and sop > math.log(2) - SOP_MARGIN
    if not mlm_stuck and not (sop_stuck and unigram_loss is None):
        return None
    step = recent[-1].get("step")
    if mlm_stuck:
        found = f"MLM loss {mlm:.2f} is the unigram value {unigram_loss:.2f} (word frequencies)"
        if sop_stuck:
            found += f" and SOP loss {sop:.2f} is chance (ln 2)"
    else:
        found = f"SOP loss {sop:.2f} is chance (ln 2)"
    return f"collapsed at step {step}: {found}. {_remedy(model, collapsed=sop_stuck)}"


def _remedy(model: ModelConfig, *, collapsed: bool) -> str:
    # 0.02 was tuned for H 768; the standard deviation of a sum over H inputs grows with
    # sqrt(H), so the same signal in a narrower network takes larger weights.
    scaled = 0.02 * math.sqrt(768 / model.hidden_size)
    advice = []
    if collapsed:
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
    if not collapsed:
        advice.append("lower optimizer.learning_rate if the loss had been better before")
    return "Start anew and " + ", ".join(advice)


def _mean(rows: Sequence[Mapping[str, object]], key: str) -> float | None:
    values = [v for v in (_number(row.get(key)) for row in rows) if v is not None]
    return sum(values) / len(values) if values else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
