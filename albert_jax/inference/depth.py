"""Depth as a dial: which depths a model has, and a model at one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from albert_jax.config import ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model_io.model import Model

MOST = 1000
"""No encoder is applied more often."""


def check(model: ModelConfig, num_layers: int) -> None:
    """Raises ConfigError for a depth that the model does not have."""
    if not model.num_hidden_groups <= num_layers <= MOST:
        raise ConfigError(
            f"--num-layers {num_layers}: the model takes {model.num_hidden_groups} "
            f"(model.num_hidden_groups) to {MOST}"
        )
    if model.sharing != "all" and num_layers > model.num_hidden_layers:
        raise ConfigError(
            f"--num-layers {num_layers}: layers without sharing exist "
            f"{model.num_hidden_layers} times (model.num_hidden_layers); give at most that"
        )


def at_depth(model: Model, num_layers: int) -> Model:
    """The model whose own depth is `passes`: what `encode` computes with that many of them.

    Raises ConfigError for a depth that it does not have.
    """
    from albert_jax.model import sharing

    check(model.config, num_layers)
    config = dataclasses.replace(model.config, num_hidden_layers=num_layers)
    kept = dict(zip(("attention", "ffn"), sharing.sets(config), strict=True))
    encoder = {name: _first(model.params["encoder"][name], kept[name]) for name in kept}
    return dataclasses.replace(
        model,
        run_config=dataclasses.replace(model.run_config, model=config),
        params=model.params | {"encoder": encoder},
    )


def _first(stacked: Any, count: int) -> Any:
    """The first `count` parameter sets; where sets are shared those are all of them."""
    if isinstance(stacked, Mapping):
        return {name: _first(part, count) for name, part in stacked.items()}
    return stacked[:count]
