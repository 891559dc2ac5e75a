"""Directories for Transformers and our own: bit-exact, complete or absent, and refused in a line."""

from __future__ import annotations

import dataclasses
import json
import os

import ml_dtypes
import numpy as np
import pytest

from albert_jax import config_builder
from albert_jax.commands.import_model import Import
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.errors import CheckpointError, ConfigError, StorageError
from albert_jax.export.export import export
from albert_jax.model_io.model import load
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.model_io.weights import default_config
from albert_jax.tree import flatten
from tests import tiny_models
from tests.model_io.structures import STRUCTURES, finetuned, pretrained, same, tiny, weights


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("to", ["huggingface", "native"])
@pytest.mark.parametrize("kind", STRUCTURES)
def test_round_trip_gives_the_same_bits_and_bytes(tmp_path, capsys, to, kind):
    config = tiny(**STRUCTURES[kind])
    model = pretrained(config, run_config=default_config(config), has_run_config=False)
    first, second = tmp_path / "first", tmp_path / "second"
    export(model, str(first), to=to)
    Import(source=str(first), out=str(tmp_path / "in")).run()
    assert "largest difference 0" in capsys.readouterr().out
    again = load(str(tmp_path / "in"))
    assert again.config == config and same(again.params, model.params)
    assert again.vocabulary.fingerprint == model.vocabulary.fingerprint
    export(again, str(second), to=to)
    assert contents(first) == contents(second)


@pytest.mark.parametrize("trained", [True, False])
def test_a_training_config_is_kept_even_if_it_is_the_default(tmp_path, trained):
    config = tiny()
    run_config = default_config(config)
    data = dataclasses.replace(run_config.data, prepared=(str(tmp_path / "corpus"),) * trained)
    run_config = dataclasses.replace(run_config, data=data)
    model = pretrained(config, run_config=run_config, has_run_config=trained)
    export(model, str(tmp_path / "native"), to="native")
    again = load(str(tmp_path / "native"))
    assert (again.run_config, again.has_run_config) == (model.run_config, trained)
    export(again, str(tmp_path / "hf"))
    card = (tmp_path / "hf" / "README.md").read_text()
    assert ("## Training config" in card) == ("steps = 125000" in card) == trained
    assert ('"corpus"' in card) == trained and str(tmp_path) not in card
    assert not load(str(tmp_path / "hf")).has_run_config


@pytest.mark.parametrize(("head", "count"), [("pretraining", 32), ("mlm", 28), ("base", 25)])
def test_heads_and_types(tmp_path, head, count):
    model = pretrained(tiny())
    export(model, str(tmp_path / "x"), head=head, dtype="bfloat16")
    tensors = Tensors(tmp_path / "x" / "model.safetensors")
    assert len(tensors) == count
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"bfloat16"}
    assert tensors.metadata == {"format": "pt"}
    for path, leaf in flatten(load(str(tmp_path / "x")).params).items():
        rounded = flatten(model.params)[path].astype(ml_dtypes.bfloat16).astype(np.float32)
        assert np.array_equal(leaf, rounded)
    report = json.loads((tmp_path / "x" / "conversion.json").read_text())
    assert len(report["tensors"]) == count and 0 < report["max_difference"] < 0.01
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["dtype"] == "bfloat16" and type(described["hidden_size"]) is int


def test_card_and_config_say_task_labels_and_config(tmp_path):
    model = finetuned("classification", tiny(), pooling="cls", classifier_dropout_prob=0.25)
    export(model, str(tmp_path / "x"))
    card = (tmp_path / "x" / "README.md").read_text()
    for part in ("text-classification", "Fine-tuned for classification", "Labels: no, yes, perhaps.",
                 "AutoModelForSequenceClassification", "steps = 7", 'name = "classification"'):  # fmt: skip
        assert part in card
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["id2label"] == {"0": "no", "1": "yes", "2": "perhaps"}
    assert described["problem_type"] == "single_label_classification"
    assert described["classifier_dropout_prob"] == 0.25
    tensors = Tensors(tmp_path / "x" / "model.safetensors")
    assert tensors["classifier.weight"].shape == (3, 16)
    assert (tmp_path / "x" / "tokenizer.json").is_file()


REPORT = {
    "step": 7,
    "weights": "trained",
    "examples": 120,
    "results": [
        {"num_layers": 5, "scores": {"accuracy": 0.625}},
        {"num_layers": tiny().num_hidden_layers, "scores": {"accuracy": 0.8125, "f1": 0.75}},
    ],
    "majority": {"accuracy": 0.5},
}


def test_card_has_the_scores_of_these_weights_and_a_license_field(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(REPORT))
    of_run = {"source": str(tmp_path / "run"), "step": 7}
    model = finetuned("classification", tiny(), pooling="cls")
    cases = {
        "measured": (dataclasses.replace(model, **of_run), None),
        "other step": (dataclasses.replace(model, **of_run | {"step": 8}), None),
        "averaged": (dataclasses.replace(model, **of_run, weights="averaged"), None),
        "other depth": (dataclasses.replace(model, **of_run).at_depth(1), None),
        "without the head": (dataclasses.replace(model, **of_run), "base"),
        "no run": (model, None),
    }
    for name, (case, head) in cases.items():
        export(case, str(tmp_path / name), head=head)
        card = (tmp_path / name / "README.md").read_text()
        assert card.startswith("---\nlicense: unknown\n")
        assert ("## Scores" in card) == (name == "measured"), name
    card = (tmp_path / "measured" / "README.md").read_text()
    assert "on 120 examples at step 7" in card and "albert-jax finetune --config" in card
    assert (
        f"| score | {tiny().num_hidden_layers} layers | majority |\n|---|---|---|\n| accuracy | 0.8125 | 0.5 |"
        in card
    )
    assert "| f1 | 0.75 |  |" in card


@pytest.mark.parity
@pytest.mark.parametrize("words", ["text", "bare ids"])
@pytest.mark.parametrize(
    "kind",
    ["pretraining", "mlm", "base", "classification", "pairs", "pairs by [CLS]", "regression", "multiple-choice", "squad-v1",
     "token-classification", "generation"],
)  # fmt: skip
def test_the_program_in_the_card_runs(kind, words, tmp_path, capsys, caplog):
    pytest.importorskip("transformers", reason="needs the extra parity (transformers)")
    pytest.importorskip("torch", reason="needs the extra parity (torch)")
    heads = ("pretraining", "mlm", "base")
    settings = {"pooling": "cls"} if kind in ("multiple-choice", "pairs by [CLS]") else {}
    if kind.startswith("pairs"):
        kind, settings = "classification", settings | {"num_texts": 2}
    model = pretrained(tiny()) if kind in heads else finetuned(kind, tiny(), **settings)
    if words == "bare ids":
        ids = IdRange(model.config.vocab_size, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
        model = dataclasses.replace(model, vocabulary=ids)
    export(model, str(tmp_path / "x"), head=kind if kind in heads else None)
    card = (tmp_path / "x" / "README.md").read_text()
    assert "pip install transformers torch" in card
    code = card.split("```python\n")[1].split("```")[0].replace("THIS_FOLDER", str(tmp_path / "x"))
    exec(code, {})
    assert capsys.readouterr().out.strip()


def test_files_beside_vectors_and_texts(tmp_path):
    export(finetuned("sentence-embedding", tiny()), str(tmp_path / "vectors"))
    names = set(contents(tmp_path / "vectors"))
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= names
    length = json.loads((tmp_path / "vectors" / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == 32
    card = (tmp_path / "vectors" / "README.md").read_text()
    assert "SentenceTransformer(" in card and "library_name: sentence-transformers" in card
    settings = {"max_target_length": 12, "denoising_steps": 5}
    export(finetuned("generation", tiny(), **settings), str(tmp_path / "texts"))
    described = json.loads((tmp_path / "texts" / "config.json").read_text())
    assert described["generation"] == settings | {"length": 32}
    compile((tmp_path / "texts" / "generate.py").read_text(), "generate.py", "exec")


@pytest.mark.parametrize(
    ("name", "settings", "options", "error", "message"),
    [
        ("squad-v2", {}, {}, ConfigError, "no class with the head of squad-v2.*--to onnx"),
        ("multiple-choice", {}, {}, ConfigError,
         "reads the pooled.*task.pooling cls"),
        ("token-classification", {}, {"to": "native"}, CheckpointError, "--to native has no place"),
        ("token-classification", {}, {"head": "mlm"}, CheckpointError, "no mlm_head.*another head"),
    ],
)  # fmt: skip
def test_what_has_no_form_there_is_refused(name, settings, options, error, message, tmp_path):
    with pytest.raises(error, match=message) as caught:
        export(finetuned(name, tiny(), **settings), str(tmp_path / "x"), **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pooling_is_the_classifiers_business_alone(tmp_path):
    table = {"name": "token-classification", "pooling": "mean"}
    with pytest.raises(ConfigError, match="unknown key 'task.pooling'"):
        config_builder.from_dict({"task": table}, "x.toml")
    export(finetuned("token-classification", tiny()), str(tmp_path / "x"))
    assert (tmp_path / "x" / "config.json").is_file()


def test_the_network_of_a_classifier_without_its_head(tmp_path):
    export(finetuned("classification", tiny(), pooling="cls"), str(tmp_path / "x"), head="base")
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["architectures"] == ["AlbertModel"] and "id2label" not in described
    assert "Fine-tuned for" not in (tmp_path / "x" / "README.md").read_text()


def test_a_vocabulary_of_another_size(tmp_path):
    model = pretrained(tiny(vocab_size=65), vocabulary=tiny_models.vocabulary())
    for to in ("huggingface", "native"):
        with pytest.raises(CheckpointError, match="64 tokens, the model 65"):
            export(model, str(tmp_path / "y"), to=to)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    model, folder = pretrained(tiny()), tmp_path / "x"
    export(model, str(folder))
    before = contents(folder)
    with pytest.raises(CheckpointError, match="exists already"):
        export(dataclasses.replace(model, params=weights(model.config, 1)), str(folder))
    assert contents(folder) == before
    with pytest.raises(ConfigError, match="local folder"):
        export(model, "gs://bucket/x")


def test_an_export_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        export(pretrained(tiny()), str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    model = pretrained(tiny())
    model.params["pooler"]["bias"][3] = np.inf
    with pytest.raises(CheckpointError, match="pooler/bias holds NaN or infinity"):
        export(model, str(tmp_path / "x"))
