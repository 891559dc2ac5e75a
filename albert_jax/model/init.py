"""Initial parameters, drawn in numpy so that they need no compilation."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from albert_jax import tree
from albert_jax.config import ModelConfig
from albert_jax.model.albert import abstract_params


def init_params(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Random parameters with all heads, a nested dict of float32 numpy arrays.

    Kernels and embeddings are normal with standard deviation initializer_range, truncated at two
    standard deviations (create_initializer in the original's modeling.py). Biases are 0 and
    LayerNorm scales 1. Each leaf has a generator of its own, keyed by (seed, path).

    >>> tiny = ModelConfig(vocab_size=100, embedding_size=8, hidden_size=16, num_hidden_layers=2,
    ...                    num_attention_heads=2, intermediate_size=32)
    >>> params = init_params(tiny)
    >>> sorted(params)
    ['embeddings', 'encoder', 'mlm_head', 'pooler', 'sop_head']
    >>> params["encoder"]["ffn"]["intermediate"]["kernel"].shape
    (1, 16, 32)
    """
    flat = tree.flatten(abstract_params(config))
    return tree.unflatten(
        {path: init_leaf(path, x.shape, config.initializer_range, seed) for path, x in flat.items()}
    )


def init_leaf(path: str, shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    """A new parameter: a kernel truncated normal, a bias 0, a scale 1; see `init_params`."""
    kind = path.rsplit("/", 1)[-1]
    if kind == "scale":
        return np.ones(shape, np.float32)
    if kind == "bias":
        return np.zeros(shape, np.float32)
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return truncated_normal(generator, shape, std)


def truncated_normal(
    generator: np.random.Generator, shape: tuple[int, ...], std: float
) -> np.ndarray:
    """Normal float32 numbers, redrawn where they lie beyond two standard deviations."""
    values = generator.standard_normal(math.prod(shape), dtype=np.float32)
    outside = np.flatnonzero(np.abs(values) > 2.0)
    while outside.size:
        values[outside] = generator.standard_normal(outside.size, dtype=np.float32)
        outside = outside[np.abs(values[outside]) > 2.0]
    return values.reshape(shape) * np.float32(std)


def num_parameters(config: ModelConfig, heads: bool = True) -> int:
    """Number of parameters; without `heads` those of the pretraining heads are left out."""
    leaves = tree.flatten(abstract_params(config, heads)).values()
    return sum(math.prod(leaf.shape) for leaf in leaves)
