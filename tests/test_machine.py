"""The commands about machines: a budget becomes a config, and input is compared with steps."""

from __future__ import annotations

import dataclasses
import json

import pytest

from albert_jax import configfile
from albert_jax.bench import step
from albert_jax.commands.doctor import Doctor
from albert_jax.commands.plan import Plan
from albert_jax.errors import ConfigError
from tests import tiny_models

pytestmark = pytest.mark.thorough


@pytest.fixture
def run_config(tmp_path):
    """A config file of one phase of a micro model."""
    config = tiny_models.RECIPE
    config = dataclasses.replace(
        config, compute=dataclasses.replace(config.compute, dtype="float32")
    )
    path = tmp_path / "micro.toml"
    path.write_text(configfile.dumps(config))
    return str(path)


def test_a_budget_on_a_slice_becomes_a_config_that_fits(tmp_path, capsys):
    out = str(tmp_path / "mine.toml")
    assert Plan(slice="h200-8", chip_hours=48.0, out=out, json=True).run() == 0
    told, last = capsys.readouterr().out.splitlines()
    told = json.loads(told)
    config, bought = configfile.load(out), told["bought"]
    assert last.startswith("fits: ") and told["fits"]
    assert bought["preset"] == "large-eight-chips" and told["hours"] == pytest.approx(
        6 * 0.95, 1e-2
    )
    assert [phase.steps for phase in config.phases] == [p["steps"] for p in bought["phases"]]
    assert bought["learning_rate"] == config.optimizer.learning_rate
    assert Plan(slice="h200-8", chip_hours=48.0, out=out).run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "the budget buys large-eight-chips: " in lines[-3] and lines[-3].endswith(out)


def test_a_given_config_keeps_its_rows_and_rate(tmp_path, capsys):
    out = str(tmp_path / "mine.toml")
    given = configfile.load("base-one-chip")
    assert Plan(config="base-one-chip", slice="h200-1", hours=1.0, out=out).run() == 0
    config = configfile.load(out)
    assert [phase.batch_size for phase in config.phases] == [
        phase.batch_size for phase in given.phases
    ]
    assert config.optimizer.learning_rate == given.optimizer.learning_rate
    assert 0 < config.steps < given.steps


def test_nothing_is_written_for_a_plan_that_does_not_fit(tmp_path, capsys):
    out = tmp_path / "mine.toml"
    assert Plan(config="base-v2", slice="h200-8", hours=1.0, out=str(out)).run() == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("does not fit: phase 0 needs ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hours": 1.0}, "give both, or neither"),
        ({"hours": 1.0, "chip_hours": 1.0, "out": "x"}, "exclude each other"),
        ({"hours": 0.0, "out": "x"}, "above 0"),
        ({"hours": float("inf"), "out": "x"}, "above 0"),
        ({"hours": 1.0, "out": "x", "efficiency": 0.0}, "--efficiency 0.0"),
        ({}, "give --config, or a budget"),
    ],
)
def test_what_makes_no_sense_is_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        Plan(slice="h200-8", **options).run()
    with pytest.raises(ConfigError, match="give --hours"):
        Plan(slice="here", chip_hours=1.0, out="x").run()


def test_a_budget_on_this_machine_is_measured(run_config, tmp_path, capsys):
    out = str(tmp_path / "mine.toml")
    assert Plan(config=run_config, slice="here", hours=0.01, out=out).run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "fits: it was measured on this machine"
    assert configfile.load(out).steps > 10 and "steps of 8 x 16" in lines[-2]


@pytest.mark.parametrize(("seconds", "word"), [(60.0, "ok "), (1e-9, "NOT")])
def test_the_doctor_compares_input_with_steps(
    run_config, tmp_path, capsys, monkeypatch, seconds, word
):
    data = tiny_models.prepared(tmp_path)
    monkeypatch.setattr(step, "seconds_per_step", lambda config: [seconds])
    Doctor(out=str(tmp_path), config=run_config, data=(data,)).run()
    line = next(x for x in capsys.readouterr().out.splitlines() if " input " in x)
    assert line.startswith(word) and "phase 0: a batch of 8 x 16 takes" in line
    assert ("raise data.workers" in line) == (word == "NOT")


def test_the_doctor_leaves_no_folder_behind(tmp_path, capsys):
    Doctor(out=str(tmp_path / "new" / "run")).run()
    assert f"{tmp_path}: written, read and deleted" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
