"""One set of parameters at several depths: cut, exported, measured layer by layer, left early."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from albert_jax import api, cli
from albert_jax.errors import ConfigError
from albert_jax.inference.early_exit import EarlyExit
from albert_jax.inference.layer_similarity import mean_cosines
from albert_jax.inference.predict import predict
from albert_jax.tasks.support.columns import TextExample
from albert_jax.tasks.token_classification import TokenClassificationConfig
from tests import tiny_models
from tests.tiny_models import classifier

pytestmark = pytest.mark.thorough

TEXTS = [TextExample(f"f:{i}", (text,)) for i, text in enumerate(tiny_models.SENTENCES)]


def test_a_model_at_a_depth_is_its_encoder_with_that_many_layers():
    batch = api.rows(tiny_models.vocabulary(), ["the file is found"], length=16)
    for mode, num_layers in (("all", 1), ("all", 7), ("none", 2), ("ffn", 3)):
        model = tiny_models.model(num_hidden_layers=4, sharing=mode)
        cut = model.at_depth(num_layers)
        assert cut.config.num_hidden_layers == num_layers
        shapes = jax.tree.map(np.shape, api.init(cut.config))
        assert jax.tree.map(np.shape, cut.params) == shapes
        np.testing.assert_allclose(
            api.encode(cut.params, cut.config, batch),
            api.encode(model.params, model.config, batch, num_layers=num_layers),
            atol=1e-6,
        )


def test_changes_are_cosines_over_real_tokens():
    model = tiny_models.model(num_hidden_layers=3)
    batch = api.rows(model.vocabulary, ["the file", "a folder holds the name"], length=24)
    found = mean_cosines(model.params, model.config, api.FLOAT32, [batch, batch])
    from albert_jax.model import albert

    first = albert.embed(model.params, model.config, batch, compute=api.FLOAT32)
    _, each = albert.encode_all_layers(model.params, model.config, batch, compute=api.FLOAT32)
    states = [np.asarray(first, np.float64), *np.asarray(each, np.float64)]
    real = batch["segment_ids"] > 0
    for number in (1, 2, 3):
        a, b = states[number - 1][real], states[number][real]
        cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert found[f"cosine_of_layer_{number}"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert list(found) == [f"cosine_of_layer_{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("trained", "share", "groups", "pooling"),
    [((), 0.5, 1, "cls"), ((2, 3, 4), 0.5, 1, "cls"), ((), None, 1, "cls"), ((), 0.5, 2, "mean")],
)
def test_every_text_leaves_where_its_head_is_sure(trained, share, groups, pooling):
    """Against the plain forward pass at every depth; a `share` is not sure at the first exit."""
    model = classifier(num_layers=4, trained=trained, num_hidden_groups=groups)
    task = dataclasses.replace(model.run_config.task, pooling=pooling)
    model = dataclasses.replace(model, run_config=dataclasses.replace(model.run_config, task=task))
    plain = {n: predict(model, TEXTS, num_layers=n) for n in range(groups, 5)}
    stops = [n for n in trained or range(1, 5) if n < 4]
    if groups == 2:  # The groups of two layers are 0 and 1, but the first two of four have group 0.
        stops = [3]
    known = [one["probability"] for one in plain[stops[0]]]
    confidence = 1.0 if share is None else float(np.quantile(known, share))
    early = EarlyExit(model, confidence)
    found = predict(model, TEXTS, early_exit=early)
    num_layers = []
    for i, one in enumerate(found):
        sure = [n for n in stops if plain[n][i]["probability"] >= confidence]
        expected = sure[0] if sure else 4
        assert one["num_layers"] == expected
        assert one["label"] == plain[expected][i]["label"]
        assert one["probability"] == pytest.approx(plain[expected][i]["probability"], abs=1e-5)
        num_layers.append(expected)
    assert early.layers_used and sorted(early.layers_used) == sorted(num_layers)
    assert (len(set(num_layers)) > 1) == (share == 0.5)
    assert f"{np.mean(num_layers):.2f} of 4 layers" in early.summary()


def test_early_exit_is_for_classification():
    with pytest.raises(ConfigError, match="--exit-confidence is for classification, not for mod"):
        EarlyExit(tiny_models.model(), 0.9)
    model = classifier()
    task = TokenClassificationConfig(labels=("a", "b", "c"))
    model = dataclasses.replace(model, run_config=dataclasses.replace(model.run_config, task=task))
    with pytest.raises(ConfigError, match="not for token-classification"):
        EarlyExit(model, 0.9)


def test_export_at_a_depth(tmp_path, capsys):
    source = tiny_models.directory(tmp_path)
    assert cli.main(["export", source, "--out", str(tmp_path / "hf"), "--num-layers", "3"]) == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["num_hidden_layers"] == 3
    loaded = api.load(str(tmp_path / "hf"))
    batch = api.rows(loaded.vocabulary, ["the file is found"], length=16)
    np.testing.assert_allclose(
        api.encode(loaded.params, loaded.config, batch),
        api.encode(tiny_models.model().params, tiny_models.MODEL, batch, num_layers=3),
        atol=1e-6,
    )
    assert cli.main(["export", source, "--out", str(tmp_path / "x"), "--num-layers", "0"]) == 2
    assert "--num-layers 0" in capsys.readouterr().err and not (tmp_path / "x").exists()
