from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from albert_jax import tree
from albert_jax.config import ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model import init, sharing
from albert_jax.model.sharing import check_depth

BASE = ModelConfig()


@pytest.mark.parametrize(
    ("mode", "embedding", "millions"),
    [
        ("all", 64, 10), ("all", 128, 12), ("all", 256, 16), ("all", 768, 31),
        ("none", 64, 87), ("none", 128, 89), ("none", 256, 93), ("none", 768, 108),
        ("attention", 128, 64), ("ffn", 128, 38), ("attention", 768, 83), ("ffn", 768, 57),
    ],
)  # fmt: skip
def test_the_dial_rounds_to_the_papers_counts(mode, embedding, millions):
    """Not-shared rows are printed without the pooler, the others with it."""
    config = dataclasses.replace(BASE, sharing=mode, embedding_size=embedding)
    count = init.num_parameters(config, heads=False)
    if mode == "none":
        count -= 768 * 768 + 768
    assert round(count / 1e6) == millions


def test_tables():
    config = ModelConfig(num_hidden_layers=4, num_hidden_groups=3, inner_group_num=2)
    assert sharing.table(config).attention == (0, 1, 0, 1, 2, 3, 4, 5)
    assert sharing.sets(config) == (6, 6)
    config = ModelConfig(num_hidden_layers=3, sharing="attention")
    assert sharing.table(config) == sharing.Sharing((0, 0, 0), (0, 1, 2))
    assert sharing.sets(config) == (1, 3)
    assert sharing.table(config, 2).ffn == (0, 1)
    with pytest.raises(ConfigError, match="to 3 .model.num_hidden_layers."):
        sharing.table(config, 4)
    assert sharing.table(ModelConfig(), 48).ffn == (0,) * 48


def test_the_quotient_is_rounded_like_the_originals():
    config = ModelConfig(num_hidden_layers=22, num_hidden_groups=22)
    table = sharing.table(config).attention
    assert table == tuple(int(layer / 22 * 22) for layer in range(22)) != tuple(range(22))


@pytest.mark.parametrize(
    ("config", "num_layers", "part"),
    [
        (ModelConfig(num_hidden_groups=3), 2, "num_hidden_groups"),
        (ModelConfig(sharing="none"), 13, "from 1 .* to 12 "),
        (ModelConfig(), 0, "--num-layers 0"),
        (ModelConfig(), 1001, "1000"),
    ],
)
def test_depths_that_a_model_does_not_have(config, num_layers, part):
    with pytest.raises(ConfigError, match=part):
        check_depth(config, num_layers)


def test_initial_values():
    config = ModelConfig(
        vocab_size=500, embedding_size=32, hidden_size=64, num_attention_heads=4,
        intermediate_size=128, num_hidden_layers=2, sharing="none",
    )  # fmt: skip
    first = tree.flatten(init.init_params(config, 1))
    again = tree.flatten(init.init_params(config, 1))
    other = tree.flatten(init.init_params(config, 2))
    for path, leaf in first.items():
        assert leaf.dtype == np.float32 and np.array_equal(leaf, again[path])
        kind = path.rsplit("/", 1)[-1]
        if kind in ("bias", "scale"):
            assert (leaf == (kind == "scale")).all()
            continue
        assert np.abs(leaf).max() <= 0.04 + 1e-7
        assert not np.array_equal(leaf, other[path])
        if leaf.size > 10_000:
            # A normal cut at two deviations has 0.8796 of its deviation.
            assert leaf.std() == pytest.approx(0.02 * 0.8796, rel=0.03)
            assert abs(leaf.mean()) < 4 * 0.02 / math.sqrt(leaf.size)
    kernel = first["encoder/attention/query/kernel"]
    assert not np.array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel[0], first["encoder/attention/key/kernel"][0])
