"""Presets: whole, true to the paper, and what their head comments say."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib

import pytest

from albert_jax import configfile
from albert_jax.config import Config, PhaseConfig
from albert_jax.config_fields import leaves
from albert_jax.model import flops
from albert_jax.plan.chips import CHIPS

NAMES = [name for name in configfile.presets() if not name.startswith("finetune/")]
"""Those of pretraining; sizes of the others come with their weights (tests/finetuning)."""
ON_CPU = ["tiny", "small", "medium", "small-zh", "plbert-small"]
ENCODER = {"base": 11_683_584, "large": 17_683_968, "xlarge": 58_724_864, "xxlarge": 222_595_584}
HEADS = {"base": 11_813_810, "large": 17_847_474, "xlarge": 59_021_490, "xxlarge": 223_158_450}


def _head(name):
    text = (configfile.preset_folder() / f"{name}.toml").read_text()
    return "".join(line[2:] + "\n" for line in text.split("\n\n")[0].splitlines())


def test_all_are_there():
    sizes = [f"{size}-v{version}" for size in ENCODER for version in (1, 2)]
    own = [*ON_CPU, "base-one-chip", "large-eight-chips", "plbert"]
    assert sorted(NAMES) == sorted([*sizes, *own])


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_what_a_preset_is_and_costs(name):
    head = _head(name)
    for word in ("Command:", "Hardware:", "Hours:", name):
        assert word in head
    for command in re.findall(r"--config (\S+)", head):
        assert command == name


@pytest.mark.parametrize("name", configfile.presets())
def test_a_preset_states_only_what_differs_from_what_it_extends(name):
    raw = tomllib.loads((configfile.preset_folder() / f"{name}.toml").read_text())
    base = raw.pop("extends", None)
    below = configfile.to_dict(configfile.load(base) if base else Config())
    default_phase = dataclasses.asdict(PhaseConfig())
    for section, values in raw.items():
        if section == "phases":
            continue
        if section == "task":
            below.setdefault("task", {})
        for key, value in values.items() if isinstance(values, dict) else [(section, values)]:
            known = below[section] if isinstance(values, dict) else below
            assert key not in known or known[key] != value, f"{section}.{key}"
    for phase in raw.get("phases", []):
        objective = phase.pop("objective", {})
        assert all(default_phase[key] != value for key, value in phase.items())
        assert all(default_phase["objective"][key] != value for key, value in objective.items())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", ENCODER)
def test_published_sizes(size, version, capsys):
    from albert_jax import cli

    assert cli.main(["config", "show", "--config", f"{size}-v{version}"]) == 0
    out = capsys.readouterr().out
    assert f"{ENCODER[size]:,} (encoder with pooler), {HEADS[size]:,} (with all heads)" in out
    config = configfile.load(f"{size}-v{version}")
    phase, optimizer = config.phases[0], config.optimizer
    assert (phase.batch_size, phase.sequence_length, len(config.phases)) == (4096, 512, 1)
    assert (optimizer.learning_rate, optimizer.warmup_steps) == (0.00176, 3125)
    assert (optimizer.name, config.model.vocab_size) == ("lamb", 30_000)
    steps = 125_000 if version == 1 else 10_000_000 if size == "base" else 3_000_000
    assert phase.steps == steps
    dropout = 0.1 if version == 1 and size != "xxlarge" else 0.0
    assert config.model.hidden_dropout_prob == dropout
    assert config.model.attention_probs_dropout_prob == dropout


def test_versions_differ_only_where_they_should():
    for size in ENCODER:
        lines = configfile.difference(configfile.load(f"{size}-v2"), configfile.load(f"{size}-v1"))
        fields = {line.split(" ")[0] for line in lines}
        assert fields <= {
            "phases.0.steps", "run.eval_steps",
            "model.hidden_dropout_prob", "model.attention_probs_dropout_prob",
        }  # fmt: skip


@pytest.mark.parametrize("name", ["base-one-chip", "large-eight-chips"])
def test_small_batches_scale_the_rate_by_the_square_root(name):
    config = configfile.load(name)
    rows = {phase.batch_size for phase in config.phases}
    assert len(rows) == 1
    wanted = 0.00176 * math.sqrt(rows.pop() / 4096)
    assert config.optimizer.learning_rate == pytest.approx(wanted, rel=0.01)


def _hours(config: Config, chips: int, peak: float) -> float:
    total = 0.0
    for phase in config.phases:
        forward = flops.forward_per_token(
            config.model,
            sequence_length=phase.sequence_length,
            predictions=phase.max_predictions_per_seq,
            num_layers=config.model.num_hidden_layers,
            word_prediction=phase.objective.word_prediction,
        )
        total += 3 * forward * phase.steps * phase.batch_size * phase.sequence_length
    return total / (0.5 * chips * peak) / 3600


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ON_CPU])
def test_hours_in_the_head_follow_the_formula(name):
    config, head = configfile.load(name), _head(name)
    found = re.findall(r"([\d,.]+) on (?:(\d) )?(v5e|v6e|H200)(?:-(\d+))?", head.replace("\n", " "))
    assert len(found) == 3
    for hours, before, chip, after in found:
        told = float(hours.replace(",", ""))
        assert told == pytest.approx(
            _hours(config, int(before or after or 1), CHIPS[chip.lower()].flops), rel=0.1
        )


@pytest.mark.parametrize("name", ON_CPU)
def test_cpu_presets_are_factorised_and_scale_the_initialiser(name):
    model = configfile.load(name).model
    assert model.embedding_size < model.hidden_size
    wanted = 0.02 * math.sqrt(768 / model.hidden_size)
    assert model.initializer_range == pytest.approx(wanted, rel=0.1)


def test_defaults_of_the_dataclasses_are_base_without_dropout():
    fields = dict(leaves(configfile.load("base-v2").model))
    assert fields == dict(leaves(Config().model))
    assert dataclasses.asdict(Config().optimizer) == dataclasses.asdict(
        configfile.load("base-v1").optimizer
    )
