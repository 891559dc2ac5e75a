"""A model at another depth."""

from __future__ import annotations

import dataclasses

from albert_jax.model_io.model import Model


def at_depth(model: Model, num_layers: int) -> Model:
    """The model that consists of the first `num_layers` layers, as `encode` applies them.

    Raises ConfigError for a number of layers that the model does not have.
    """
    from albert_jax.model import depth

    config, params = depth.at_depth(model.config, model.params, num_layers)
    run_config = dataclasses.replace(model.run_config, model=config)
    return dataclasses.replace(model, run_config=run_config, params=params)
