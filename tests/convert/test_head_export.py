"""Export of fine-tuned parameters: which files, and what is refused in one line."""

from __future__ import annotations

import json

import pytest

from albert_jax import config_builder
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model_io import native
from albert_jax.model_io import safetensors_files as safetensors_io
from tests.convert.models import tiny, tuned


def test_card_and_config_say_task_labels_and_recipe(tmp_path, vocabulary):
    run_config, params = tuned("classification", tiny(), classifier_dropout_prob=0.25)
    native.export_run(params, run_config, vocabulary, tmp_path / "x")
    card = (tmp_path / "x" / "README.md").read_text()
    for part in ("text-classification", "Fine-tuned for classification", "Labels: no, yes, perhaps.",
                 "AutoModelForSequenceClassification", "steps = 7", 'name = "classification"'):  # fmt: skip
        assert part in card
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["id2label"] == {"0": "no", "1": "yes", "2": "perhaps"}
    assert described["problem_type"] == "single_label_classification"
    assert described["classifier_dropout_prob"] == 0.25
    tensors = safetensors_io.read(tmp_path / "x" / "model.safetensors")
    assert tensors.shapes["classifier.weight"] == (3, 16)
    assert (tmp_path / "x" / "tokenizer.json").is_file()


def test_files_beside_vectors_and_texts(tmp_path, vocabulary):
    run_config, params = tuned("sentence-embedding", tiny())
    native.export_run(params, run_config, vocabulary, tmp_path / "vectors")
    here = {
        p.relative_to(tmp_path / "vectors").as_posix() for p in (tmp_path / "vectors").rglob("*")
    }
    assert {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"} <= here
    length = json.loads((tmp_path / "vectors" / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == 32
    assert "SentenceTransformer(" in (tmp_path / "vectors" / "README.md").read_text()
    run_config, params = tuned("generation", tiny(), max_target_length=12, denoising_steps=5)
    native.export_run(params, run_config, vocabulary, tmp_path / "texts")
    described = json.loads((tmp_path / "texts" / "config.json").read_text())
    assert described["generation"] == {
        "max_target_length": 12,
        "denoising_steps": 5,
        "length": 32,
    }
    compile((tmp_path / "texts" / "generate.py").read_text(), "generate.py", "exec")


@pytest.mark.parametrize(
    ("name", "settings", "options", "error", "message"),
    [
        ("squad-v2", {}, {}, ConfigError, "no class with the head of squad-v2.*--to onnx"),
        ("classification", {"pooling": "mean"}, {}, ConfigError,
         "reads the pooled.*task.pooling cls"),
        ("token-classification", {}, {"to": "native"}, CheckpointError, "--to native has no place"),
        ("token-classification", {}, {"to": "tf1"}, CheckpointError, "--to tf1 has no place"),
        ("token-classification", {}, {"head": "mlm"}, CheckpointError, "no mlm_head.*another head"),
    ],
)  # fmt: skip
def test_what_has_no_form_there_is_refused(
    name, settings, options, error, message, tmp_path, vocabulary
):
    run_config, params = tuned(name, tiny(), **settings)
    with pytest.raises(error, match=message) as caught:
        native.export_run(params, run_config, vocabulary, tmp_path / "x", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pooling_is_the_classifiers_business_alone(tmp_path, vocabulary):
    table = {"name": "token-classification", "pooling": "mean"}
    with pytest.raises(ConfigError, match="unknown key 'task.pooling'"):
        config_builder.from_dict({"task": table}, "x.toml")
    run_config, params = tuned("token-classification", tiny())
    native.export_run(params, run_config, vocabulary, tmp_path / "x")
    assert (tmp_path / "x" / "config.json").is_file()


def test_the_network_of_a_classifier_without_its_head(tmp_path, vocabulary):
    run_config, params = tuned("classification", tiny())
    native.export_run(params, run_config, vocabulary, tmp_path / "x", head="base")
    described = json.loads((tmp_path / "x" / "config.json").read_text())
    assert described["architectures"] == ["AlbertModel"] and "id2label" not in described
    assert "Fine-tuned for" not in (tmp_path / "x" / "README.md").read_text()
