"""Decides if the layers of a network are unrolled or scanned, where the config leaves it open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from albert_jax.config import Config

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
