"""Decides if the layers of a network are unrolled or scanned, where the config leaves it open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import jax

from albert_jax.config import ComputeConfig, Config, ModelConfig
from albert_jax.model.albert import FLOAT32

MOST_BLOCKS = 12
"""Deeper networks are scanned: what each block adds to compile outweighs what it saves in a run."""


def with_unroll(
    config: Config, device: Any, recorded: Literal["auto", True, False] = "auto"
) -> Config:
    """The config with compute.unroll decided for a jax.Device where it is "auto".

    `recorded` is the value in the config of a run that is continued; unless it is "auto" it is
    kept, so that the numbers repeat. Otherwise a few layers are unrolled on a CPU, whose compiler
    is quick and whose scans copy what they save for the backward pass.
    """
    unroll = config.compute.unroll
    if unroll == "auto":
        unroll = recorded
    if unroll == "auto":
        layers = {config.model.num_hidden_layers}.union(*(p.depths for p in config.phases))
        blocks = max(layers) * config.model.inner_group_num
        unroll = device.platform == "cpu" and blocks <= MOST_BLOCKS
    return replace(config, compute=replace(config.compute, unroll=unroll))


def inference_compute(config: ModelConfig, num_layers: int | None = None) -> ComputeConfig:
    """Float32 on this process's first device, at a depth (None: the model's own).

    Unrolled layers compute the last one at the masked positions alone.
    """
    model = replace(config, num_hidden_layers=num_layers or config.num_hidden_layers)
    return with_unroll(Config(model=model, compute=FLOAT32), jax.local_devices()[0]).compute
