"""Says in words when a model has stopped learning.

Small encoders with the published settings often predict word frequencies and nothing else
forever. The MLM loss then stays at its unigram value. If the learning rate is too high, the SOP
loss stays at ln 2 as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    rows: Sequence[Mapping[str, Any]], *, model: ModelConfig, warmup_steps: int, unigram_loss: float
) -> str | None:
    """A message if the newest WINDOW training rows of metrics.jsonl show a collapsed run.

    `unigram_loss` is the cross-entropy in nats of masked tokens under the frequencies of the
    training corpus.
    """
    recent = rows[-WINDOW:]
    if len(recent) < WINDOW or recent[0]["step"] < max(WARMUPS * warmup_steps, MIN_STEPS):
        return None
    mlm, sop = _mean(recent, "mlm_loss"), _mean(recent, "sop_loss")
    if mlm is None or mlm <= unigram_loss - MLM_MARGIN:
        return None
    message = (
        f"collapsed at step {recent[-1]['step']}: MLM loss {mlm:.2f} is no better than that of "
        f"word frequencies ({unigram_loss:.2f})"
    )
    sop_stuck = sop is not None and sop > math.log(2) - SOP_MARGIN
    if sop_stuck:
        message += f" and SOP loss {sop:.2f} no better than chance (ln 2)"
    return f"{message}. Start anew and {', '.join(_advice(model, sop_stuck=sop_stuck))}"


def _advice(model: ModelConfig, *, sop_stuck: bool) -> list[str]:
    # 0.02 was tuned for H = 768. The standard deviation of a sum over H inputs grows with
    # sqrt(H), so the same signal in a narrower network needs larger weights.
    scaled = 0.02 * math.sqrt(768 / model.hidden_size)
    advice = ["lower optimizer.learning_rate by half or more"] if sop_stuck else []
    if model.hidden_size < 768 and model.initializer_range < 0.9 * scaled:
        advice.append(
            f"set model.initializer_range to {scaled:.3f} (0.02 x sqrt(768 / hidden_size); "
            f"it is {model.initializer_range:g})"
        )
    elif model.initializer_range > 1.5 * scaled:
        advice.append(
            f"lower model.initializer_range from {model.initializer_range:g} to {scaled:.3f}"
        )
    advice.append(
        "cut the texts of the first phase to random lengths (phases.0.short_seq_prob = 1.0)"
    )
    if not sop_stuck:
        advice.append("lower optimizer.learning_rate if the loss was better before")
    return advice


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None
