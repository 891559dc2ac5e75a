"""Import and export: bit-exact both ways, whole or not at all, one clear line for bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest

from albert_jax.config import LAYER_NORM_EPS
from albert_jax.errors import CheckpointError, ConfigError, DataError, StorageError
from albert_jax.model_io import huggingface, native, tf1
from albert_jax.model_io import parameter_names as names
from albert_jax.model_io import published_models as released
from albert_jax.model_io import safetensors_files as safetensors_io
from albert_jax.model_io.importing import import_model
from albert_jax.tree import flatten
from tests.convert.models import STRUCTURES, same, tiny, weights, whole


@pytest.fixture
def exported(tmp_path, vocabulary):
    """A Hugging Face directory, and what it was made of."""
    config = tiny()
    params = weights(config)
    native.export_run(params, whole(config), vocabulary, tmp_path / "hf")
    return tmp_path / "hf", config, params


def _contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("to", ["huggingface", "tf1", "native"])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_round_trip_gives_the_same_bits_and_bytes(tmp_path, vocabulary, capsys, to, kind):
    config = tiny(**STRUCTURES[kind])
    params = weights(config)
    first, second = tmp_path / "first", tmp_path / "second"
    run_config = native._config_for(config)
    native.export_run(params, run_config, vocabulary, first, to=to)
    import_model(str(first), str(tmp_path / "in"))
    assert "largest difference 0" in capsys.readouterr().out
    found, back, known = native.load_directory(tmp_path / "in")
    assert found.model == config and same(back, params)
    assert known is not None and known.fingerprint == vocabulary.fingerprint
    native.export_run(back, found, known, second, to=to)
    assert _contents(first) == _contents(second)


def test_a_native_directory_keeps_the_recipe(tmp_path, vocabulary):
    config = whole(tiny())
    native.export_run(weights(config.model), config, vocabulary, tmp_path / "n", to="native")
    assert native.load_directory(tmp_path / "n")[0] == config
    native.export_run(weights(config.model), config, vocabulary, tmp_path / "hf")
    assert "steps = 7" in (tmp_path / "hf" / "README.md").read_text()


@pytest.mark.parametrize(("head", "count"), [("pretraining", 32), ("mlm", 28), ("base", 25)])
def test_heads_and_types(tmp_path, vocabulary, head, count):
    config = tiny()
    params = weights(config)
    native.export_run(
        params, whole(config), vocabulary, tmp_path / "x", head=head, dtype="bfloat16"
    )
    tensors = safetensors_io.read(tmp_path / "x" / "model.safetensors")
    assert len(tensors) == count and set(tensors.dtypes.values()) == {"BF16"}
    assert tensors.metadata == {"format": "pt"}
    found = native.load_directory(tmp_path / "x")[1]
    for path, leaf in flatten(found).items():
        rounded = flatten(params)[path].astype(ml_dtypes.bfloat16).astype(np.float32)
        assert np.array_equal(leaf, rounded)
    report = json.loads((tmp_path / "x" / "conversion.json").read_text())
    assert len(report["tensors"]) == count and 0 < report["max_difference"] < 0.01
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["dtype"] == "bfloat16" and type(described["hidden_size"]) is int


def test_shared_copies_that_were_tuned_apart_come_in_as_separate(tmp_path, vocabulary):
    config = tiny(sharing="ffn")
    native.export_run(weights(config), whole(config), vocabulary, tmp_path / "x")
    path = tmp_path / "x" / "model.safetensors"
    stored = dict(safetensors_io.read(path))
    name = "albert.encoder.albert_layer_groups.2.albert_layers.0.ffn.bias"
    stored[name] = stored[name] + 1
    safetensors_io.write(path, stored)
    found, params, _ = native.load_directory(tmp_path / "x")
    assert (found.model.sharing, found.model.num_hidden_groups) == ("all", 3)
    assert np.array_equal(params["encoder"]["ffn"]["intermediate"]["bias"][2], stored[name])


def test_groups_that_transformers_rounds_differently(tmp_path):
    config = tiny(num_hidden_layers=22, num_hidden_groups=22, hidden_size=4, num_attention_heads=1)
    described = huggingface.config_json(config, None, dtype="float32")
    stored = {}
    for group in range(22):
        one = dataclasses.replace(config, num_hidden_layers=1, num_hidden_groups=1)
        for name, array in names.to_huggingface(weights(one, group), one).items():
            stored[name.replace("albert_layer_groups.0", f"albert_layer_groups.{group}")] = array
    (tmp_path / "config.json").write_text(json.dumps(described))
    safetensors_io.write(tmp_path / "model.safetensors", stored)
    found, params, _ = native.load_directory(tmp_path)
    assert found.model.sharing == "none"
    for layer in range(22):
        group = names.huggingface_group(layer, 22, 22)
        bias = stored[f"albert.encoder.albert_layer_groups.{group}.albert_layers.0.ffn.bias"]
        assert np.array_equal(params["encoder"]["ffn"]["intermediate"]["bias"][layer], bias)


def test_a_file_alone_and_a_config_given(tmp_path, exported):
    folder, config, params = exported
    alone = tmp_path / "weights.safetensors"
    shutil.copy(folder / "model.safetensors", alone)
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        native.read_source(alone)
    found = native.read_source(alone, config=str(folder / "config.json"))
    assert same(found.params, params) and found.vocabulary is None
    assert found.config.model == config


def test_golden_checkpoints_travel_through_every_format(golden, tmp_path):
    cases = sorted(p for p in (golden / "model").iterdir() if p.is_dir())
    assert cases
    for case in cases:
        config, params, _ = native.load_directory(case)
        out = tmp_path / case.name
        native.export_run(params, config, None, out / "hf")
        again = native.load_directory(out / "hf")
        assert again[0].model == config.model and same(again[1], params)
        native.export_run(again[1], again[0], None, out / "tf", to="tf1")
        ours, theirs = tf1.read(out / "tf"), tf1.read(case)
        assert set(ours) == set(theirs)
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_published_models_are_recognised(shared):
    from albert_jax.data.vocabularies import vocabulary as vocabularies

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    large |= {"intermediate_size": 4096, "embedding_size": 128, "vocab_size": 30000}
    assert released.recognise(large | {"hidden_dropout_prob": 0.1}) == "ALBERT large v1"
    assert released.recognise(large | {"hidden_dropout_prob": 0}) == "ALBERT large v2"
    assert released.recognise(large | {"vocab_size": 21128}) is None
    # The hub's copies of v1 call the tanh form by the original's name.
    model = huggingface.read_config(large | {"hidden_act": "gelu"}, "x")
    assert model.hidden_act == "gelu_new"
    published = vocabularies.load(str(shared / "data" / "tokenizer" / "albert-en-30k.spiece.model"))
    assert released.is_published_vocabulary(published)


# --- bad input ------------------------------------------------------------------------------------


def _refused(source, message, error=CheckpointError, **options):
    with pytest.raises(error, match=message) as caught:
        import_model(str(source), str(source) + "-out", **options)
    assert "\n" not in str(caught.value)
    assert not os.path.lexists(str(source) + "-out")
    assert not [n for n in os.listdir(os.path.dirname(source)) if "partial" in n]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 64.0}, "hidden_size is 64.0, not a int"),
        ({"hidden_size": "16"}, "not a int"),
        ({"hidden_size": 18}, "do not belong together"),
        ({"num_hidden_groups": 2}, "and 12 more are missing"),
        ({"vocab_size": 151}, "vocabulary has 150 pieces|has shape"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
        ({"hidden_act": "gelu"}, "set gelu_new"),
        ({"hidden_act": "swish"}, "cannot be expressed"),
        ({"model_type": "roberta"}, "roberta model, not ALBERT"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob"),
        ({"num_attention_heads": 3}, "not divisible"),
    ],
)
def test_contradicting_config(exported, change, message):
    folder, _, _ = exported
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    _refused(folder, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "no JSON object"),
        (b'{"hidden_size": 1, "hidden_size": 2}', "twice"),
        (b'{"hidden_size": NaN}', "NaN"),
        (b"{" + b'"a":[' * 50 + b"]" * 50 + b"}", "deeper than 32"),
        (b" " * (1 << 20) + b"{}", "larger than"),
        (b"{}", "vocab_size is missing"),
    ],
)
def test_hostile_config(exported, content, message):
    (exported[0] / "config.json").write_bytes(content)
    _refused(exported[0], message)


def _bert(stored):
    return {"bert.encoder.layer.0.output.dense.weight": np.zeros((2, 2), np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "query.bias" not in k}, "query.bias is missing"),
        (
            lambda s: s | {"classifier.weight": np.zeros((2, 16), np.float32)},
            "classifier.weight is",
        ),
        (lambda s: s | {"albert.pooler.bias": np.full(16, np.nan, np.float32)}, "NaN"),
        (lambda s: s | {"albert.pooler.bias": np.zeros(15, np.float32)}, "albert.pooler.bias has"),
        (_bert, "BERT model, not ALBERT"),
    ],
)
def test_contradicting_weights(exported, change, message):
    path = exported[0] / "model.safetensors"
    safetensors_io.write(path, change(dict(safetensors_io.read(path))))
    _refused(exported[0], message)


def test_formats_that_run_code_are_refused_by_name_and_content(exported):
    folder, _, _ = exported
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _refused(folder, r"pytorch_model\.bin is not opened.*save_pretrained")
    _refused(folder / "pytorch_model.bin", "is not opened")
    for name, content in (
        ("a.safetensors", b"\x80\x02}q\x00."),
        ("b.safetensors", b"PK\x03\x04 archive/data.pkl"),
        ("c.weights", b"\x89HDF\r\n\x1a\n"),
    ):
        (folder / name).write_bytes(content)
        _refused(folder / name, "is not opened")


def test_a_vocabulary_of_another_size(exported, tmp_path):
    folder, config, params = exported
    with pytest.raises(CheckpointError, match="150 pieces, the model 151"):
        other = tiny(vocab_size=151)
        from albert_jax.data.vocabularies import vocabulary as vocabularies

        known = vocabularies.load(str(folder))
        native.export_run(weights(other), whole(other), known, tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_a_damaged_vocabulary(exported):
    (exported[0] / "spiece.model").write_bytes(b"damaged")
    _refused(exported[0], "spiece.model", error=DataError)


def test_nothing_is_overwritten(exported, tmp_path, vocabulary):
    folder, config, params = exported
    before = _contents(folder)
    with pytest.raises(CheckpointError, match="exists already"):
        native.export_run(params, whole(config), vocabulary, folder)
    with pytest.raises(CheckpointError, match="exists already"):
        import_model(str(folder), str(folder))
    assert _contents(folder) == before
    with pytest.raises(ConfigError, match="local folder"):
        native.export_run(params, whole(config), vocabulary, "gs://bucket/x")


def test_an_export_that_fails_half_way_leaves_nothing(tmp_path, vocabulary, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    config = tiny()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        native.export_run(weights(config), whole(config), vocabulary, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_exported(tmp_path, vocabulary):
    config = tiny()
    params = weights(config)
    params["pooler"]["bias"][3] = np.inf
    with pytest.raises(CheckpointError, match="pooler/bias holds NaN or infinity"):
        native.export_run(params, whole(config), vocabulary, tmp_path / "x")


def test_damaged_native_directories(tmp_path, vocabulary):
    config = whole(tiny())
    params = weights(config.model)
    native.export_run(params, config, vocabulary, tmp_path / "n", to="native")
    path = tmp_path / "n" / "params.safetensors"
    flat = flatten(params)
    for change, message in (
        ({"pooler/bias": None}, "pooler/bias missing"),
        ({"stray": np.zeros(2, np.float32)}, "stray not expected"),
        ({"pooler/bias": np.zeros(3, np.float32)}, "do not belong together"),
        ({"pooler/bias": np.zeros(16, np.float16) + np.float16(np.nan)}, "NaN"),
    ):
        changed = {k: v for k, v in (flat | change).items() if v is not None}
        safetensors_io.write(path, changed)
        with pytest.raises(CheckpointError, match=message):
            native.load_directory(tmp_path / "n")


def test_tf1_without_config_or_index(tmp_path, golden):
    case = next(p for p in sorted((golden / "model").iterdir()) if p.is_dir())
    for file in case.glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    _refused(tmp_path / "model.ckpt", r"albert_config\.json: no such file")
    (tmp_path / "model.ckpt.index").unlink()
    _refused(tmp_path / "model.ckpt", r"model\.ckpt\.index: no such file")


def test_bert_checkpoints_are_named(tmp_path):
    values = {"bert/encoder/layer_0/output/dense/kernel": np.zeros((2, 2), np.float32)}
    tf1.write(tmp_path / "bert", values)
    _refused(tmp_path / "bert", "BERT checkpoint, not ALBERT")


def test_epsilon_is_the_originals():
    assert LAYER_NORM_EPS == 1e-12
