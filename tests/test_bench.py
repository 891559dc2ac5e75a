"""Measuring: rows that can be trained on, figures that agree with each other, few imports."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from albert_jax import configfile
from albert_jax.bench import step
from albert_jax.data.batches.batch import batch_shapes
from albert_jax.errors import ConfigError
from albert_jax.model import flops
from tests.test_house import _loaded

BARE = {"grain", "orbax", "array_record", "tensorflow_datasets", "tyro", "tomli_w", "torch"}


@pytest.mark.parametrize("name", ["tiny", "small", "plbert-small", "plbert"])
def test_random_rows_have_the_shapes_of_true_ones(name):
    config = step.single_phase(configfile.load(name), batch_size=4, length=24)
    rows = step.random_rows(config.model, config.phases[0], 4)
    assert {k: (v.shape, v.dtype) for k, v in rows.items()} == batch_shapes(config.phases[0], 4)
    places = rows["mlm_positions"]
    assert (np.diff(places, axis=1) > 0).all() and places.max() < 24
    assert rows["input_ids"].max() < config.model.vocab_size


def test_wrong_sizes_are_refused():
    config = configfile.load("tiny")
    with pytest.raises(ConfigError, match="--phase 9: the config has"):
        step.single_phase(config, 9)
    with pytest.raises(ConfigError, match="sequence_length"):
        step.single_phase(config, length=4096)


@pytest.mark.thorough
def test_the_figures_agree():
    config = configfile.load("tiny")
    model = dataclasses.replace(config.model, vocab_size=64, hidden_size=32, intermediate_size=64)
    config = dataclasses.replace(config, model=model)
    adjusted = step.single_phase(config, batch_size=4, length=16)
    found = dataclasses.asdict(step.measure(adjusted, "micro", steps=3))
    assert found["flops_per_step"] == flops.per_step(model, adjusted.phases[0])
    assert found["tokens_per_second"] == pytest.approx(64 / found["step_seconds"])
    assert found["peak_flops_per_second"] is None and found["mfu"] > 0
    assert found["steps"] == 3 and found["step_seconds_p90"] >= found["step_seconds"]
    assert found["peak_memory_bytes"] > 1e7
    assert found["first_step_seconds"] > found["compilation_seconds"]


def test_measuring_loads_neither_readers_nor_checkpoints():
    loaded = _loaded(
        "from albert_jax import configfile\nfrom albert_jax.bench import step\n"
        "config = step.single_phase(configfile.load('tiny'), batch_size=2, length=8)\n"
        "import albert_jax.train.step, albert_jax.objectives.pretraining, albert_jax.model.init"
    )
    assert "jax" in loaded and not loaded & BARE
