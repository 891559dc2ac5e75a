"""A task that is not built in: one class in one file is trained, evaluated, applied and exported.

The task predicts how many words a text has, as a line through the mean of its tokens. Nothing
else of the package knows it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from albert_jax import cli
from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.sources.tables import read_records, text_field
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.tasks import registry
from albert_jax.tasks.support import rows
from albert_jax.tasks.support.rows import BatchSpec, TokenSequence
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Prediction, Scores, Task
from tests import tiny_models

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import LossTerms
    from albert_jax.tasks.support.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class WordCountConfig(TaskConfig):
    """Settings of the word count."""

    name: str = "word-count"
    scale: float = bounded(10.0, 0.1)


@dataclass(frozen=True)
class Text:
    where: str
    text: str
    count: int | None


@dataclass(frozen=True)
class TextFeature:
    tokens: TokenSequence
    count: int


class WordCount(Task[WordCountConfig, Text, TextFeature]):
    """Predict the number of words of a text."""

    name = "word-count"
    config_class = WordCountConfig
    metrics = ("absolute_error",)
    greater_is_better = False
    transformers = TransformersClass(name="AlbertModel")

    def read_examples(self, path: str, *, labelled: bool) -> list[Text]:
        examples = []
        for record in read_records(path):
            text = text_field(record, "text")
            examples.append(Text(record.where, text, len(text.split()) if labelled else None))
        return examples

    def parse_line(self, line: str, where: str) -> Text:
        return Text(where, line, None)

    def texts(self, example: Text) -> Sequence[str]:
        return (example.text,)

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[Text], length: int
    ) -> list[TextFeature]:
        ids = rows.encode_all(vocabulary, (x.text for x in examples))
        return [
            TextFeature(rows.sequence(vocabulary, [ids(x.text)], length), x.count or 0)
            for x in examples
        ]

    def collate(self, features: Sequence[TextFeature], spec: BatchSpec) -> rows.Batch:
        batch = rows.sequence_rows([f.tokens for f in features], spec.length, spec.batch_size)
        counts = [f.count / self.config.scale for f in features]
        return batch | rows.label_columns(counts, spec.batch_size, np.float32)

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        return {"count": {"kernel": (hidden_size, 1), "bias": (1,)}}

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        import jax.numpy as jnp

        from albert_jax.objectives.loss_terms import LossTerm, LossTerms

        counts = self.logits(encoder, batch)
        error = jnp.square(counts - batch["labels"])
        total = jnp.sum(batch["example_weights"] * error)
        return LossTerms({"squared_error": LossTerm(total, "example_weights")}, {})

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        from albert_jax.tasks.support.encoder import dense

        hidden = encoder.hidden_states(batch)
        vectors = encoder.pool(hidden, batch, "mean")
        return dense(encoder.params["head"]["count"], vectors)[:, 0]

    def predict(
        self, examples: Sequence[Text], features: Sequence[TextFeature], outputs: Any
    ) -> list[Prediction]:
        return [{"words": float(value) * self.config.scale} for value in outputs]

    def score(self, examples: Sequence[Text], predictions: Sequence[Prediction]) -> Scores:
        errors = [
            abs(p["words"] - (x.count or 0)) for x, p in zip(examples, predictions, strict=True)
        ]
        return {"absolute_error": float(np.mean(errors))}

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        return {"counts": ("batch",)}


@pytest.fixture
def word_count(monkeypatch):
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    registry.register(WordCount)


def table(path: Path, count: int) -> str:
    texts = [" ".join(tiny_models.SENTENCES[i % 8].split()[: 1 + i % 7]) for i in range(count)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def test_a_task_of_one_file_goes_all_the_way(word_count, tmp_path, capsys):
    train, dev = table(tmp_path / "train.jsonl", 56), table(tmp_path / "dev.jsonl", 14)
    init, out = tiny_models.directory(tmp_path), str(tmp_path / "run")
    common = ["--phases.0.sequence-length", "16", "--phases.0.batch-size", "8"]
    arguments = ["finetune", "--task", "word-count", "--init", init, "--out", out, "--train", train,
                 "--dev", dev, *common, "--task.scale", "8", "--task.num-train-epochs", "12",
                 "--optimizer.learning-rate", "3e-3"]  # fmt: skip
    assert cli.main(arguments) == 0, capsys.readouterr().err

    assert cli.main(["evaluate", out]) == 0
    report = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    (found,) = report["results"]
    # Guessing the mean of 1 to 7 words errs by 12 / 7.
    assert found["scores"]["absolute_error"] < 1.0
    best = json.loads((tmp_path / "run" / "record.json").read_text())
    assert "word-count" in json.dumps(best)

    capsys.readouterr()
    assert cli.main(["predict", out, "the file is found"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert words == pytest.approx(4, abs=1.5)

    exported = tmp_path / "exported"
    assert cli.main(["export", out, "--out", str(exported)]) == 0
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["AlbertModel"]
    assert "word-count" in (exported / "README.md").read_text()


def test_fields_that_the_task_does_not_have_are_refused(word_count, tmp_path, capsys):
    data = table(tmp_path / "train.jsonl", 8)
    given = ["finetune", "--task", "word-count", "--out", str(tmp_path / "run"), "--train", data]
    assert cli.main([*given, "--dev", data, "--task.doc-stride", "4"]) == 2
    assert "doc-stride" in capsys.readouterr().err
    assert cli.main([*given, "--dev", data, "--task.scale", "0"]) == 2
    assert "task.scale" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_task_without_onnx_form_says_so(word_count, tmp_path):
    from albert_jax.errors import ConfigError

    with pytest.raises(ConfigError, match="word-count has no ONNX form: export it --to stablehlo"):
        WordCount(replace(WordCountConfig(), scale=2.0)).onnx_outputs(None, "hidden")
