"""Import: bit-exact from every format, and one clear line for bad input."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from albert_jax.commands.import_model import Import
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import CheckpointError, ConfigError, DataError, StorageError
from albert_jax.export import huggingface as writer
from albert_jax.export.export import export
from albert_jax.model_io import directories, huggingface, safetensors_files, tf1
from albert_jax.model_io.parameter_conversion import config_entries, to_format
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.tree import flatten
from tests.model_io import tf1_files
from tests.model_io.structures import STRUCTURES, pretrained, same, tiny


def import_model(source, out, **options):
    Import(source=str(source), out=str(out), **options).run()


@pytest.fixture
def exported(tmp_path):
    """A Hugging Face directory, and the model that it was made of."""
    model = pretrained(tiny())
    writer.export(model, tmp_path / "hf")
    return tmp_path / "hf", model


@pytest.mark.parametrize("kind", ["shared", "groups", "equal"])
def test_checkpoints_of_the_original(tmp_path, kind, capsys):
    model = pretrained(tiny(**STRUCTURES[kind]))
    source = tmp_path / "original"
    source.mkdir()
    tf1_files.write(source / "model.ckpt", to_format(model.params, model.config, "original"))
    acts = {"gelu_new": "gelu"}
    entries = config_entries(model.config)
    entries["hidden_act"] = acts.get(model.config.hidden_act, model.config.hidden_act)
    (source / "albert_config.json").write_text(json.dumps(entries))
    vocabularies.save(model.vocabulary, str(source))
    import_model(source, tmp_path / "in")
    assert "(tf1" in (line := capsys.readouterr().out) and "largest difference 0" in line
    found = directories.read(tmp_path / "in")
    assert found.config == model.config and same(found.params, model.params)
    assert found.run_config is None
    assert found.vocabulary.fingerprint == model.vocabulary.fingerprint


def test_shared_copies_that_were_tuned_apart_come_in_as_separate(tmp_path):
    writer.export(pretrained(tiny(sharing="ffn")), tmp_path / "x")
    path = tmp_path / "x" / "model.safetensors"
    stored = dict(Tensors(path))
    name = "albert.encoder.albert_layer_groups.2.albert_layers.0.ffn.bias"
    stored[name] = stored[name] + 1
    safetensors_files.write(path, stored)
    with pytest.raises(CheckpointError, match="sharing 'none' in its config"):
        directories.read(tmp_path / "x")
    described = tmp_path / "x" / "config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"sharing": "none"}))
    found = directories.read(tmp_path / "x")
    assert found.config.sharing == "none"
    assert np.array_equal(found.params["encoder"]["ffn"]["intermediate"]["bias"][2], stored[name])


def test_groups_and_sharing_come_back(tmp_path):
    """Groups that Transformers rounds in its own way, and groups beside another sharing."""
    small = {"hidden_size": 4, "num_attention_heads": 1}
    for name, changes in (
        ("rounded", {"num_hidden_layers": 22, "num_hidden_groups": 22, **small}),
        ("attention", {"sharing": "attention", "num_hidden_groups": 2}),
    ):
        model = pretrained(tiny(**changes))
        writer.export(model, tmp_path / name)
        found = directories.read(tmp_path / name)
        assert found.config == model.config
        tensors = huggingface.to_huggingface(found.params, found.config)
        stored = Tensors(tmp_path / name / "model.safetensors")
        assert all(np.array_equal(tensors[key], stored[key]) for key in stored)
    path = tmp_path / "rounded" / "config.json"
    described = json.loads(path.read_text())
    del described["sharing"]
    path.write_text(json.dumps(described))
    _refused(tmp_path / "rounded", "rounds 22 groups of 22 layers")


def test_a_file_alone_and_a_config_given(tmp_path, exported):
    folder, model = exported
    alone = tmp_path / "weights.safetensors"
    shutil.copy(folder / "model.safetensors", alone)
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        directories.read(alone)
    found = directories.read(alone, config=str(folder / "config.json"))
    assert same(found.params, model.params) and found.vocabulary is None
    assert found.config == model.config


def test_golden_checkpoints_become_hugging_faces_and_come_back(golden, tmp_path):
    cases = sorted(p for p in (golden / "model").iterdir() if p.is_dir())
    assert cases
    for case in cases:
        found = directories.read(case)
        writer.export(pretrained(found.config, found.params), tmp_path / case.name)
        again = directories.read(tmp_path / case.name)
        assert again.config == found.config and same(again.params, found.params)
        ours = to_format(again.params, again.config, "original")
        stored = tf1.read_variables(case / "model.ckpt.index")
        for name, array in ours.items():
            assert array.tobytes() == stored[name].tobytes()


def test_published_copies_call_the_tanh_form_gelu():
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    large |= {"intermediate_size": 4096, "vocab_size": 30000, "hidden_act": "gelu"}
    assert huggingface.read_config(large, "x").hidden_act == "gelu_new"


# ---- bad input -----------------------------------------------------------------------------------


def _refused(source, message, error=CheckpointError, **options):
    with pytest.raises(error, match=message) as caught:
        import_model(source, f"{source}-out", **options)
    assert "\n" not in str(caught.value)
    assert not os.path.lexists(str(source) + "-out")
    assert not [n for n in os.listdir(os.path.dirname(source)) if "partial" in n]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 64.0}, "hidden_size must be a whole number, not a number"),
        ({"hidden_size": "16"}, "a whole number, not a string"),
        ({"hidden_size": 18}, "do not belong together"),
        ({"num_hidden_groups": 3}, "and 28 more are missing"),
        ({"vocab_size": 65}, "has shape"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05"),
        ({"hidden_act": "gelu"}, "set gelu_new"),
        ({"hidden_act": "swish"}, "hidden_act must be one of"),
        ({"hidden_act": ["relu"]}, "hidden_act must be one of"),
        ({"sharing": "other"}, "sharing must be one of"),
        ({"model_type": "roberta"}, "roberta model, not ALBERT"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob"),
        ({"num_attention_heads": 3}, "not divisible"),
    ],
)
def test_contradicting_config(exported, change, message):
    folder, _ = exported
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
        (lambda s: s | {"albert.pooler.bias": np.zeros(16, np.int8)}, "pooler.bias is int8"),
        (_bert, "no layer of ALBERT, but of a BERT"),
    ],
)
def test_contradicting_weights(exported, change, message):
    path = exported[0] / "model.safetensors"
    safetensors_files.write(path, change(dict(Tensors(path))))
    _refused(exported[0], message)


def test_formats_that_run_code_are_refused_by_name_and_content(exported):
    folder, _ = exported
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    _refused(folder, r"holds no model\.safetensors: .*can run code.*save_pretrained")
    _refused(folder / "pytorch_model.bin", "is not opened")
    (folder / "a.safetensors").write_bytes(b"\x80\x02}q\x00.")
    _refused(folder / "a.safetensors", "header claims|no valid safetensors file")


def test_a_damaged_vocabulary(exported):
    (exported[0] / "spiece.model").write_bytes(b"damaged")
    _refused(exported[0], "spiece.model", error=DataError)


def test_tf1_without_config_or_index(tmp_path, golden):
    case = next(p for p in sorted((golden / "model").iterdir()) if p.is_dir())
    for file in case.glob("model.ckpt*"):
        shutil.copy(file, tmp_path)
    _refused(tmp_path / "model.ckpt", r"albert_config\.json: no such file")
    (tmp_path / "model.ckpt.index").unlink()
    _refused(tmp_path / "model.ckpt", r"model\.ckpt: nothing there.*PREFIX\.index")


def test_bert_checkpoints_are_named(tmp_path):
    values = {"bert/encoder/layer_0/output/dense/kernel": np.zeros((2, 2), np.float32)}
    tf1_files.write(tmp_path / "bert", values)
    _refused(tmp_path / "bert", "no layer of ALBERT, but of a BERT")


def test_an_unreadable_source_is_reported_as_such(exported, tmp_path, monkeypatch):
    folder, _ = exported

    def broken(*arguments, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(directories.huggingface, "read", broken)
    with pytest.raises(StorageError) as caught:
        import_model(folder, tmp_path / "out")
    assert str(caught.value).startswith(f"{folder}: Input/output error")
    assert not (tmp_path / "out").exists()


def test_damaged_native_directories(tmp_path):
    model = pretrained(tiny())
    export(model, str(tmp_path / "n"), to="native")
    path, flat = tmp_path / "n" / "params.safetensors", flatten(model.params)
    for change, message in (
        ({"pooler/bias": None}, "pooler/bias is missing"),
        ({"stray": np.zeros(2, np.float32)}, "stray is not expected"),
        ({"pooler/bias": np.zeros(3, np.float32)}, "do not belong together"),
        ({"pooler/bias": np.zeros(16, np.float16) + np.float16(np.nan)}, "NaN"),
    ):
        changed = {k: v for k, v in (flat | change).items() if v is not None}
        safetensors_files.write(path, changed)
        with pytest.raises(CheckpointError, match=message):
            directories.read(tmp_path / "n")


def test_an_existing_folder_is_not_overwritten(exported):
    folder, _ = exported
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(CheckpointError, match="exists already"):
        import_model(folder, folder)
    assert sorted(p.name for p in folder.iterdir()) == before
    with pytest.raises(ConfigError, match="local folder"):
        import_model(folder, "gs://bucket/x")
