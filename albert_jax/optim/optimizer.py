"""The optimizer that a config names.

A new optimizer is a file beside lamb.py, a value of OptimizerConfig.name and a line here. Nothing
outside this package knows the structure of its state.
"""

from __future__ import annotations

from typing import Any

import optax

from albert_jax.config import OptimizerConfig
from albert_jax.optim.adamw import adamw
from albert_jax.optim.lamb import lamb


def make_optimizer(
    config: OptimizerConfig, learning_rate: Any = 0.0
) -> optax.GradientTransformation:
    """The optimizer with its learning rate, on which the structure of its state does not depend."""
    return {"lamb": lamb, "adamw": adamw}[config.name](config, learning_rate)
