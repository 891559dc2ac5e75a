"""Small models of every structure."""

from __future__ import annotations

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.model.init import init_params
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import init_head, task_params
from albert_jax.tree import flatten, unflatten
from tests import tiny_models

STRUCTURES = {
    "shared": {},
    "groups": {"num_hidden_groups": 2, "inner_group_num": 2},
    "attention": {"sharing": "attention"},
    "ffn": {"sharing": "ffn", "num_hidden_groups": 1},
    "none": {"sharing": "none", "inner_group_num": 2},
    "equal": {"embedding_size": 16, "hidden_act": "relu"},
}
LABELS = {"classification": ("no", "yes", "perhaps"), "token-classification": ("B-X", "I-X", "O")}


def tiny(**changes) -> ModelConfig:
    """A structure of a few thousand parameters, for the vocabulary of tiny_models."""
    base = {
        "vocab_size": 64, "embedding_size": 8, "hidden_size": 16, "num_hidden_layers": 3,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32,
    }  # fmt: skip
    return ModelConfig(**(base | changes))


def weights(config: ModelConfig, seed: int = 0) -> dict:
    """Parameters in which no two entries are alike, biases and scales included."""
    return _shaken(init_params(config, seed), seed)


def _shaken(params: dict, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    flat = flatten(params)
    return unflatten(
        {
            path: (leaf + rng.normal(0, 0.1, leaf.shape)).astype(np.float32)
            for path, leaf in flat.items()
        }
    )


def pretrained(config: ModelConfig, params: dict | None = None, **fields) -> Model:
    """A pretrained model; `fields` are those of Model."""
    phase = PhaseConfig(sequence_length=config.max_position_embeddings, steps=7, batch_size=2)
    ids = IdRange(config.vocab_size, pad_id=0, cls_id=2, sep_id=3, mask_id=4)
    vocabulary = tiny_models.vocabulary() if config.vocab_size == 64 else ids
    values = {
        "run_config": Config(model=config, phases=(phase,)),
        "params": weights(config) if params is None else params,
        "vocabulary": vocabulary,
        "source": "memory",
    }
    return Model(**(values | fields))


def finetuned(name: str, config: ModelConfig, seed: int = 0, **settings) -> Model:
    """A model fine-tuned for a task, in which every entry of the head matters."""
    if name in LABELS:
        settings = {"labels": LABELS[name], **settings}
    task = registry.create(registry.get(name).config_class(**settings))
    head = _shaken(init_head(task.head_shapes(config.hidden_size), seed, 0.3), seed)
    phases = pretrained(config).run_config.phases
    run_config = Config(model=config, phases=phases, task=task.config)
    params = task_params(task, weights(config, seed), head)
    return pretrained(config, params, run_config=run_config)


def same(a: dict, b: dict) -> bool:
    """Returns True if two trees have equal leaves, bit for bit."""
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(
        np.asarray(a[k]).dtype == np.asarray(b[k]).dtype
        and np.asarray(a[k]).tobytes() == np.asarray(b[k]).tobytes()
        for k in a
    )
