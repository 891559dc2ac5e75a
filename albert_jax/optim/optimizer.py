"""The update rule that a config names."""

from __future__ import annotations

import optax

from albert_jax.config import OptimizerConfig
from albert_jax.optim.adamw import adamw
from albert_jax.optim.lamb import lamb


def build(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """LAMB or AdamW with the config's numbers; the learning rate is given at each update."""
    rule = {"lamb": lamb, "adamw": adamw}[config.name]
    return rule(b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay)
