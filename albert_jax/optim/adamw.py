"""AdamW as in the original (albert/optimization.py)."""

from __future__ import annotations

from typing import Any

import optax

from albert_jax.config import OptimizerConfig
from albert_jax.optim.transformations import decayed, scale_by_uncorrected_adam


def adamw(config: OptimizerConfig, learning_rate: Any) -> optax.GradientTransformation:
    """Decoupled weight decay, no bias correction, eps outside the square root."""
    return optax.chain(
        scale_by_uncorrected_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(learning_rate),
    )
