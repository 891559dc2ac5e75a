"""Layers are unrolled where that pays, and a run that has begun keeps what it began with."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from albert_jax import configfile
from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig
from albert_jax.errors import ConfigError
from albert_jax.model.unroll import MOST_BLOCKS, with_unroll
from albert_jax.train.run import set_up

CPU, GPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="gpu")


def _unroll(config: Config, device: Any, *begun: Any) -> Any:
    return with_unroll(config, device, *begun).compute.unroll


def test_a_few_layers_are_unrolled_on_a_cpu() -> None:
    base, deep = Config(), Config(model=ModelConfig(num_hidden_layers=24))
    assert base.compute.unroll == "auto" and MOST_BLOCKS == base.model.num_hidden_layers
    assert _unroll(base, CPU) is True and _unroll(base, GPU) is False
    assert _unroll(deep, CPU) is False
    drawn = dataclasses.replace(base, phases=(PhaseConfig(), PhaseConfig(depths=(4, 24))))
    assert _unroll(drawn, CPU) is False
    inner = dataclasses.replace(base, model=ModelConfig(num_hidden_layers=6, inner_group_num=4))
    assert _unroll(inner, CPU) is False


@pytest.mark.parametrize("named", [True, False])
def test_what_is_named_stays_and_a_begun_run_keeps_its_own(named: bool) -> None:
    config = Config(compute=ComputeConfig(unroll=named))
    for device in (CPU, GPU):
        assert _unroll(config, device, not named) is named
        assert _unroll(Config(), device, named) is named


def test_a_run_is_continued_as_its_folder_says(tmp_path) -> None:
    assert set_up(configfile.load("tiny"), str(tmp_path), {})[0].compute.unroll is True
    scanned = dataclasses.replace(configfile.load("tiny"), compute=ComputeConfig(unroll=False))
    (tmp_path / "config.toml").write_text(configfile.dumps(scanned))
    (tmp_path / "record.json").write_text("{}")
    assert set_up(configfile.load("tiny"), str(tmp_path), {})[0].compute.unroll is False


@pytest.mark.parametrize("name", ["tiny", "small", "finetune/default", "finetune/sst-2"])
def test_presets_for_a_cpu_leave_it_to_the_machine(name: str) -> None:
    assert _unroll(configfile.load(name), CPU) is True


def test_a_number_is_neither_true_nor_false(tmp_path) -> None:
    (tmp_path / "c.toml").write_text("[compute]\nunroll = 1\n")
    with pytest.raises(ConfigError, match="compute.unroll must be one of 'auto', True, False"):
        configfile.load(str(tmp_path / "c.toml"))
