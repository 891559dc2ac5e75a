"""A run folder measured and loaded: newest, best and averaged parameters, several depths."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_models

from albert_jax import api, configfile
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import CheckpointError, ConfigError, DataError
from albert_jax.evaluation.evaluate import evaluate
from albert_jax.model_io import model as loading
from albert_jax.observe.metrics import MetricsWriter

CONFIG = dataclasses.replace(
    tiny_models.RECIPE,
    optimizer=dataclasses.replace(tiny_models.RECIPE.optimizer, ema_decay=0.9),
    compute=api.EXACT,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of three checkpoints; step 2 has the best number."""
    folder = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(
        CONFIG, data=dataclasses.replace(CONFIG.data, prepared=(tiny_models.prepared(folder),))
    )
    path = folder / "run"
    path.mkdir()
    (path / "config.toml").write_text(configfile.dumps(config))
    (path / "record.json").write_text("{}")
    vocabularies.save(tiny_models.vocabulary(), str(path / "vocabulary"))
    checkpoints = Checkpoints(str(path), keep=3, best=None)
    for step, loss in ((1, 5.0), (2, 3.0), (3, 4.0)):
        params = api.init(config.model, seed=step)
        state = {"params": params, "ema": api.init(config.model, seed=10 + step)}
        checkpoints.save(step, state, {}, {"mlm_loss": loss})
    checkpoints.close()
    writer = MetricsWriter(str(path), events=False)
    writer.write({"step": 1, "mlm_loss": 5.0})
    writer.close()
    return str(path)


def kernel(model: api.Model) -> np.ndarray:
    return np.asarray(model.params["pooler"]["kernel"])


def test_steps_and_weights_are_chosen(run: str) -> None:
    for options, seed, step in (
        ({}, 3, 3),
        ({"step": "best"}, 2, 2),
        ({"step": 1}, 1, 1),
        ({"weights": "averaged"}, 13, 3),
    ):
        model = api.load(run, **options)
        assert model.step == step
        np.testing.assert_array_equal(
            kernel(model), api.init(CONFIG.model, seed)["pooler"]["kernel"]
        )


def test_table_report_and_curves(run: str) -> None:
    text = evaluate(run, num_layers=(1, 2), rows=8)
    report = json.loads((Path(run) / "evaluation.json").read_text())
    assert report["step"] == 3 and set(report["results"]) == {"1 passes", "2 passes"}
    one, two = report["results"]["1 passes"], report["results"]["2 passes"]
    assert one["unigram_loss"] == two["unigram_loss"] > 1
    assert one["mlm_loss"] != two["mlm_loss"]
    assert one["forward_flops_per_token"] < two["forward_flops_per_token"]
    assert 0 <= two["sop_cut_accuracy"] <= 1
    assert two["nats_below_unigram"] == pytest.approx(two["unigram_loss"] - two["mlm_loss"])
    assert f"{two['mlm_loss']:.4f}" in text and "sop_cut_accuracy" in text
    assert (Path(run) / "curves.png").stat().st_size > 1000


def test_numbers_are_those_of_the_rows_alone(run: str) -> None:
    evaluate(run, rows=8)
    first = json.loads((Path(run) / "evaluation.json").read_text())
    evaluate(run, rows=8)
    assert json.loads((Path(run) / "evaluation.json").read_text()) == first


def test_what_cannot_be_measured(run: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run folder"):
        evaluate(str(tmp_path))
    with pytest.raises(ConfigError, match="--num-layers 0"):
        evaluate(run, num_layers=(0,))
    with pytest.raises(CheckpointError, match="7"):
        api.load(run, step=7)


def test_run_without_average_or_checkpoint(run: str, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, ema_decay=0.0)
    )
    (tmp_path / "config.toml").write_text(configfile.dumps(config))
    (tmp_path / "record.json").write_text("{}")
    assert loading.is_run(str(tmp_path)) and not loading.is_run(str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="ema_decay is 0"):
        api.load(str(tmp_path), weights="averaged")
    with pytest.raises(CheckpointError):
        api.load(str(tmp_path))


def test_prepared_text_that_is_gone(run: str, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    config = broken / "config.toml"
    there = configfile.load(str(config)).data.prepared[0]
    config.write_text(config.read_text().replace(there, str(tmp_path / "gone")))
    with pytest.raises(DataError, match=r"gone .*data prepare"):
        evaluate(str(broken))


def test_a_run_is_loaded_as_arrays_that_jax_takes(run: str) -> None:
    model = api.load(run)
    batch = api.rows(model.vocabulary, ["the file"], length=8)
    hidden = jax.jit(lambda p: api.encode(p, model.config, batch))(model.params)
    assert hidden.shape == (1, 8, 16)
