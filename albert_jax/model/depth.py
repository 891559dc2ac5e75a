"""Depth: which numbers of layers a model has, and its parameters at one of them."""

from __future__ import annotations

import dataclasses

import jax

from albert_jax.config import ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model import sharing
from albert_jax.model.sharing import Params

MAX_LAYERS = 1000
"""No encoder has more layers than this."""


def check_depth(config: ModelConfig, num_layers: int) -> None:
    """Raises ConfigError for a number of layers that the model does not have."""
    if not config.num_hidden_groups <= num_layers <= MAX_LAYERS:
        raise ConfigError(
            f"--num-layers {num_layers}: give a number from {config.num_hidden_groups} "
            f"(model.num_hidden_groups) to {MAX_LAYERS}"
        )
    if config.sharing != "all" and num_layers > config.num_hidden_layers:
        raise ConfigError(
            f"--num-layers {num_layers}: layers without sharing exist "
            f"{config.num_hidden_layers} times (model.num_hidden_layers); give at most that"
        )


def at_depth(
    config: ModelConfig, params: Params, num_layers: int
) -> tuple[ModelConfig, dict[str, object]]:
    """Config and parameters of the model that consists of the first `num_layers` layers.

    Its `encode` equals that of the whole model with `num_layers` as argument. Raises ConfigError
    for a number of layers that the model does not have.
    """
    check_depth(config, num_layers)
    config = dataclasses.replace(config, num_hidden_layers=num_layers)
    encoder = {
        kind: jax.tree.map(lambda leaf, count=count: leaf[:count], params["encoder"][kind])
        for kind, count in zip(("attention", "ffn"), sharing.sets(config), strict=True)
    }
    return config, {**params, "encoder": encoder}
