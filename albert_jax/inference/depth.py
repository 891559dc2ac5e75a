"""Depth as a dial: which depths a model has, a model at one of them, what each pass changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model_io.model import Model

Batch = Mapping[str, np.ndarray]

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


def changes(
    params: Mapping[str, Any],
    model: ModelConfig,
    compute: ComputeConfig,
    batches: Iterable[Batch],
    *,
    num_layers: int | None = None,
) -> dict[str, float]:
    """{"cosine_of_pass_1": ..., ...}: the mean cosine of each token's state after a pass to its
    state before, over the real tokens of all batches; near 1 the pass changes little.

    The numbers are sums that ride along in the scan over the passes: no state is kept.
    """
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert

    @jax.jit
    def sums(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        real = (batch["segment_ids"] > 0).astype(jnp.float32)
        _, found = albert.encode_with_capture(
            params, model, batch, lambda a, b: jnp.sum(real * cosine(a, b)),
            compute=compute, num_layers=num_layers,
        )  # fmt: skip
        return found, jnp.sum(real)

    total, count = np.zeros(()), 0.0
    for batch in batches:
        columns = {name: batch[name] for name in _READ}
        found, tokens = jax.device_get(sums(params, columns))
        total = total + found.astype(np.float64)
        count += float(tokens)
    if not count:
        return {}
    return {
        f"cosine_of_pass_{number}": float(value / count)
        for number, value in enumerate(np.atleast_1d(total), start=1)
    }


_READ = ("input_ids", "token_type_ids", "segment_ids", "positions")


def cosine(a: Any, b: Any) -> Any:
    """Cosines float32 [...] of the vectors of two arrays [..., H]."""
    import jax.numpy as jnp

    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(lengths, 1e-12)
