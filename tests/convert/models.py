"""Small models with every structure."""

from __future__ import annotations

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.model.init import init_params
from albert_jax.tasks import registry
from albert_jax.tasks.encoder import init_head, task_params
from albert_jax.tree import flatten, unflatten


def tiny(**changes) -> ModelConfig:
    """A structure of a few thousand parameters."""
    base = {
        "vocab_size": 150, "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32,
    }  # fmt: skip
    return ModelConfig(**(base | changes))


STRUCTURES = {
    "shared": {},
    "groups": {"num_hidden_groups": 2, "inner_group_num": 2},
    "attention": {"sharing": "attention"},
    "ffn": {"sharing": "ffn", "num_hidden_groups": 1},
    "none": {"sharing": "none", "inner_group_num": 2},
    "equal": {"embedding_size": 16, "hidden_act": "relu"},
}


def weights(config: ModelConfig, seed: int = 0) -> dict:
    """Parameters in which no two entries are alike (biases and scales too)."""
    generator = np.random.default_rng(seed)
    flat = flatten(init_params(config, seed))
    return unflatten(
        {
            path: (leaf + generator.normal(0, 0.1, leaf.shape)).astype(np.float32)
            for path, leaf in flat.items()
        }
    )


def whole(config: ModelConfig) -> Config:
    """A config around a structure."""
    rows = PhaseConfig(sequence_length=config.max_position_embeddings, steps=7, batch_size=2)
    return Config(model=config, phases=(rows,))


LABELS = {"classification": ("no", "yes", "perhaps"), "token-classification": ("B-X", "I-X", "O")}


def tuned(name: str, model: ModelConfig, seed: int = 0, **settings) -> tuple[Config, dict]:
    """The config and the parameters of a fine-tuned run; every entry of its head matters."""
    task = registry.get(name)
    if name in LABELS:
        settings = {"labels": LABELS[name], **settings}
    config = task.config_class(**settings)
    generator = np.random.default_rng(seed)
    head = flatten(init_head(task.head_shapes(model.hidden_size, config), seed, 0.3))
    for path, leaf in head.items():
        head[path] = (leaf + generator.normal(0, 0.1, leaf.shape)).astype(np.float32)
    run_config = Config(model=model, phases=whole(model).phases, task=config)
    return run_config, task_params(task, weights(model, seed), unflatten(head), config)


def same(a: dict, b: dict) -> bool:
    """Whether two trees have equal leaves, bit for bit."""
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(
        np.asarray(a[k]).dtype == np.asarray(b[k]).dtype
        and np.asarray(a[k]).tobytes() == np.asarray(b[k]).tobytes()
        for k in a
    )
