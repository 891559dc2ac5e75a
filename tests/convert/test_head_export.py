"""Export of fine-tuned parameters: which files, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest

from albert_jax.config import TaskConfig
from albert_jax.convert import native, safetensors_io
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.tasks import registry
from tests.convert.models import tiny, weights, whole


def tuned(name: str, **settings):
    """(recipe, parameters) of a fine-tuned run of a task."""
    task = TaskConfig(name=name, **settings)
    kind, params = registry.task(name), weights(tiny())
    kept = {unit: params[unit] for unit in ("embeddings", "encoder", *kind.units(task))}
    head = kind.new_head(16, task.labels, 0)
    recipe = dataclasses.replace(whole(tiny()), task=task)
    return recipe, kept | ({"head": head} if head else {})


def test_card_and_config_say_task_labels_and_recipe(tmp_path, vocabulary):
    recipe, params = tuned("classification", labels=("no", "yes"), head_dropout=0.25)
    native.export_run(params, recipe, vocabulary, tmp_path / "x")
    card = (tmp_path / "x" / "README.md").read_text()
    for part in ("text-classification", "Fine-tuned for classification", "Labels: no, yes.",
                 "AutoModelForSequenceClassification", "steps = 7", 'name = "classification"'):  # fmt: skip
        assert part in card
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["id2label"] == {"0": "no", "1": "yes"}
    assert described["problem_type"] == "single_label_classification"
    assert described["classifier_dropout_prob"] == 0.25
    tensors = safetensors_io.read(tmp_path / "x" / "model.safetensors")
    assert tensors.shapes["classifier.weight"] == (2, 16)
    assert (tmp_path / "x" / "tokenizer.json").is_file()


def test_files_beside_vectors_and_texts(tmp_path, vocabulary):
    recipe, params = tuned("embedding")
    native.export_run(params, recipe, vocabulary, tmp_path / "vectors")
    here = {p.relative_to(tmp_path / "vectors").as_posix() for p in (tmp_path / "vectors").rglob("*")}
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= here
    length = json.loads((tmp_path / "vectors" / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == 32
    assert "SentenceTransformer(" in (tmp_path / "vectors" / "README.md").read_text()
    recipe, params = tuned("generation", canvas=12, rounds=5)
    native.export_run(params, recipe, vocabulary, tmp_path / "texts")
    described = json.loads((tmp_path / "texts" / "config.json").read_text())
    assert described["canvas"] == {"places": 12, "rounds": 5, "length": 32}
    compile((tmp_path / "texts" / "generate.py").read_text(), "generate.py", "exec")


@pytest.mark.parametrize(
    ("name", "settings", "options", "error", "message"),
    [
        ("squad-v2", {}, {}, ConfigError, "no class with the head of squad-v2.*--to onnx"),
        ("classification", {"pooling": "mean", "labels": ("a", "b")}, {}, ConfigError,
         "reads the pooled.*task.pooling cls"),
        ("tagging", {"labels": ("O",)}, {"to": "native"}, CheckpointError, "--to native has no place"),
        ("tagging", {"labels": ("O",)}, {"to": "tf1"}, CheckpointError, "--to tf1 has no place"),
        ("tagging", {"labels": ("O",)}, {"head": "mlm"}, CheckpointError, "no mlm_head.*another head"),
    ],
)  # fmt: skip
def test_what_has_no_form_there_is_refused(
    name, settings, options, error, message, tmp_path, vocabulary
):
    recipe, params = tuned(name, **settings)
    with pytest.raises(error, match=message) as caught:
        native.export_run(params, recipe, vocabulary, tmp_path / "x", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pooling_is_the_classifiers_business_alone(tmp_path, vocabulary):
    recipe, params = tuned("tagging", labels=("O", "B"), pooling="mean")
    native.export_run(params, recipe, vocabulary, tmp_path / "x")
    assert (tmp_path / "x" / "config.json").is_file()


def test_the_network_of_a_classifier_without_its_head(tmp_path, vocabulary):
    recipe, params = tuned("classification", labels=("no", "yes"))
    native.export_run(params, recipe, vocabulary, tmp_path / "x", head="base")
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["architectures"] == ["AlbertModel"] and "id2label" not in described
    assert "Fine-tuned for" not in (tmp_path / "x" / "README.md").read_text()
