"""LAMB as in the original (You et al. 2019, arXiv 1904.00962; albert/lamb_optimizer.py)."""

from __future__ import annotations

from typing import Any

import optax

from albert_jax.config import OptimizerConfig
from albert_jax.optim.transformations import (
    decayed,
    scale_by_layerwise_learning_rate,
    scale_by_uncorrected_adam,
)


def lamb(config: OptimizerConfig, learning_rate: Any) -> optax.GradientTransformation:
    """AdamW's direction, scaled by the trust ratio of each parameter of the unstacked model."""
    return optax.chain(
        scale_by_uncorrected_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        scale_by_layerwise_learning_rate(learning_rate),
    )
