"""Classification and regression of texts or pairs of texts (GLUE's tasks; run_classifier.py)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.config_fields import bounded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.tasks import features as rows
from albert_jax.tasks import metrics
from albert_jax.tasks.columns import (
    LABEL_NAMES,
    SCORE_NAMES,
    TableConfig,
    TextExample,
    check_labels,
    label_index,
    label_set,
    parse_parts,
    parse_score,
    read_texts,
    read_unlabeled,
)
from albert_jax.tasks.features import Tokens
from albert_jax.tasks.registry import register
from albert_jax.tasks.task import (
    Axes,
    Batch,
    BatchSpec,
    PageForm,
    Prediction,
    Task,
    TransformersClass,
    label_entries,
    needs_pooled_cls,
)

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import Loss
    from albert_jax.tasks.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(TableConfig):
    """Settings of regression, and of what classification shares with it."""

    name: str = "regression"
    """The task."""
    pooling: Literal["cls", "mean"] = "cls"
    """Judge a text by its pooled [CLS], or by the mean of its tokens."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout in front of the head while training."""
    augment: int = bounded(0, 0)
    """Copies of each training example in which a masked-language model replaces words."""
    augment_share: float = bounded(0.15, 0.0, 1.0)
    """Share of a copy's words that are replaced; at least one is."""
    augment_from: str = ""
    """Run or directory of the model that replaces them; empty: that of --init."""


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(RegressionConfig):
    """Settings of classification."""

    name: str = "classification"
    """The task."""
    labels: tuple[str, ...] = ()
    """All labels; empty: those of the training examples."""
    teacher: str = ""
    """Run that was fine-tuned to the same classification, from which this one learns too."""
    distillation_weight: float = bounded(0.5, 0.0, 1.0)
    """Share of the teacher's labels in the loss; the rest is the examples' own."""
    distillation_temperature: float = bounded(2.0, 1e-2, 1e2)
    """Divides both logits where they are compared."""
    hidden_state_weight: float = bounded(1.0, 0.0)
    """Weight of the loss between hidden states of teacher and student; 0 leaves it out."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError for a label that is named twice."""
        super().validate(where)
        check_labels(self.labels, where)


@dataclass(frozen=True)
class TextFeature:
    """A text or pair as tokens, with its class number or score (None if unknown)."""

    tokens: Tokens
    label: float | None


H = TypeVar("H", bound=RegressionConfig)


class _TextTask(Task[H, TextExample, TextFeature]):
    """What classification and regression share: one vector per text, and a dense layer on it."""

    page_form = PageForm(fields=("text", "second text (optional)"))
    label_names: ClassVar[tuple[str, ...]]
    """Usual names of the label's column."""
    label_dtype: ClassVar[type]
    """Type of the labels in a batch."""

    def read_examples(self, path: str, *, labelled: bool) -> list[TextExample]:
        """Texts of a table or hub dataset, with their labels."""
        return read_texts(path, self.config, self.label_names, labelled=labelled)

    def read_for_prediction(self, path: str, columns: tuple[str, ...] | None) -> list[TextExample]:
        """Texts of a table with or without the label's column."""
        return read_unlabeled(path, self.config, self.label_names, columns)

    def parse_line(self, line: str, where: str) -> TextExample:
        """One text, or two with a tab between them."""
        return TextExample(where, parse_parts(line, where, self.name, 1, 2))

    def texts(self, example: TextExample) -> Sequence[str]:
        """The one or two texts."""
        return example.texts

    @abc.abstractmethod
    def number(self, example: TextExample) -> float:
        """The label as a number. Raises DataError."""

    @abc.abstractmethod
    def num_outputs(self) -> int:
        """C: outputs of the head."""

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[TextExample], length: int
    ) -> list[TextFeature]:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""
        ids = rows.encode_all(vocabulary, (text for x in examples for text in x.texts))
        features = []
        for example in examples:
            texts = [rows.require_tokens(ids(t), example.where, t) for t in example.texts]
            label = None if example.label is None else self.number(example)
            features.append(TextFeature(rows.sequence(vocabulary, texts, length), label))
        return features

    def collate(self, features: Sequence[TextFeature], spec: BatchSpec) -> Batch:
        """Rows with labels [batch_size] and example_weights."""
        tokens = [feature.tokens for feature in features]
        batch = rows.sequence_rows(tokens, spec.length, spec.batch_size)
        batch["labels"] = rows.label_column(
            [feature.label for feature in features], spec.batch_size, self.label_dtype
        )
        batch["example_weights"] = rows.example_weights(len(features), spec.batch_size)
        return batch

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """One dense layer."""
        from albert_jax.tasks.encoder import dense_shapes

        return {"classifier": dense_shapes(hidden_size, self.num_outputs())}

    def pretrained_modules(self) -> tuple[str, ...]:
        """The pooler, unless the mean of the tokens is used."""
        return ("pooler",) if self.config.pooling == "cls" else ()

    def logits(
        self, encoder: Encoder, params: Any, batch: Any, dropout: Any, num_layers: Any
    ) -> Any:
        """Outputs of the head [B, C]."""
        hidden = encoder.hidden_states(params, batch, dropout, num_layers)
        return self.head_logits(encoder, params, hidden, batch, dropout)

    def head_logits(
        self, encoder: Encoder, params: Any, hidden: Any, batch: Any, dropout: Any = None
    ) -> Any:
        """Outputs of the head [B, C] for hidden states [B, S, H]."""
        from albert_jax.tasks.encoder import dropped_dense

        pooled = encoder.pool(params, hidden, batch, self.config.pooling)
        layer = params["head"]["classifier"]
        return dropped_dense(layer, pooled, dropout, self.config.classifier_dropout_prob)

    def outputs(
        self, encoder: Encoder, params: Any, batch: Any, num_layers: int | None = None
    ) -> Any:
        """Logits or scores [B, C]."""
        return self.logits(encoder, params, batch, None, num_layers)

    def transformers_class(self) -> TransformersClass:
        """AlbertForSequenceClassification, which reads the pooled [CLS]."""
        cls = TransformersClass(
            name="AlbertForSequenceClassification",
            auto="AutoModelForSequenceClassification",
            modules=("pooler",),
            head=("classifier", "classifier"),
            pipeline="text-classification",
        )
        return needs_pooled_cls(cls, self.config.pooling)

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of each text."""
        return {"logits": ("batch", self.num_outputs())}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The dense layer on the vector of the text."""
        return [graph.dense(graph.sentence_vector(hidden, self.config.pooling), "head/classifier")]


@register
class Classification(_TextTask[ClassificationConfig]):
    """Choose one of several labels for a text or a pair of texts."""

    name = "classification"
    classifies = True
    config_class = ClassificationConfig
    metrics = ("accuracy", "f1", "matthews")
    label_names = LABEL_NAMES + SCORE_NAMES
    label_dtype = np.int32

    def completed(self, train: Sequence[TextExample], dev: Sequence[TextExample]) -> Self:
        """Adds the labels of the training examples, of which there must be two."""
        labels = self.config.labels or label_set(train)
        if len(labels) < 2:
            raise DataError(
                f"{train[0].where}: {len(labels)} label in all training examples; "
                "at least two are needed"
            )
        return super().completed(train, dev).with_config(labels=labels)

    def number(self, example: TextExample) -> float:
        """Index of the label."""
        return label_index(example.where, example.label, self.config.labels)

    def num_outputs(self) -> int:
        """One for each label."""
        return len(self.config.labels)

    def loss(self, encoder: Encoder) -> Loss:
        """Cross-entropy of the labels; term "class"."""
        from albert_jax.tasks.encoder import classification_terms

        def loss(params: Any, batch: Any, *, dropout: Any, num_layers: int | None) -> Any:
            logits = self.logits(encoder, params, batch, dropout, num_layers)
            weights = batch["example_weights"]
            return classification_terms(
                "class", logits, batch["labels"], weights, "example_weights"
            )

        return loss

    def predict(
        self, examples: Sequence[TextExample], features: Sequence[TextFeature], outputs: Any
    ) -> list[Prediction]:
        """The most probable label and its probability."""
        return [
            {"label": self.config.labels[int(row.argmax())], "probability": float(row.max())}
            for row in metrics.softmax(outputs)
        ]

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        """Accuracy, F1 and Matthews correlation."""
        predicted = np.array([self.config.labels.index(p["label"]) for p in predictions])
        return metrics.classification(predicted, self._numbers(examples), len(self.config.labels))

    def baseline(
        self, train: Sequence[TextExample], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Scores of the commonest training label."""
        predicted = metrics.commonest(self._numbers(train).tolist(), len(examples))
        return metrics.classification(predicted, self._numbers(examples), len(self.config.labels))

    def _numbers(self, examples: Sequence[TextExample]) -> np.ndarray:
        return np.array([int(self.number(x)) for x in examples])

    def transformers_config(self, length: int) -> dict[str, Any]:
        """Names of the labels."""
        return label_entries(self.config.labels, self.config.classifier_dropout_prob) | {
            "problem_type": "single_label_classification"
        }


@register
class Regression(_TextTask[RegressionConfig]):
    """Predict a number for a text or a pair of texts (STS-B)."""

    name = "regression"
    config_class = RegressionConfig
    metrics = ("pearson", "spearman")
    label_names = SCORE_NAMES + LABEL_NAMES
    label_dtype = np.float32

    def number(self, example: TextExample) -> float:
        """The score."""
        return parse_score(example.where, example.label)

    def num_outputs(self) -> int:
        """One: the score itself."""
        return 1

    def loss(self, encoder: Encoder) -> Loss:
        """Squared error of the score (classifier_utils.py, STS-B); term "squared_error"."""
        import jax.numpy as jnp

        from albert_jax.objectives.loss_terms import LossTerm, LossTerms

        def loss(params: Any, batch: Any, *, dropout: Any, num_layers: int | None) -> LossTerms:
            scores = self.logits(encoder, params, batch, dropout, num_layers)[:, 0]
            total = jnp.sum(batch["example_weights"] * jnp.square(scores - batch["labels"]))
            return LossTerms({"squared_error": LossTerm(total, "example_weights")}, {})

        return loss

    def predict(
        self, examples: Sequence[TextExample], features: Sequence[TextFeature], outputs: Any
    ) -> list[Prediction]:
        """The score."""
        return [{"score": float(row[0])} for row in np.asarray(outputs)]

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        """Correlations and mean squared error."""
        return self._scores(np.array([p["score"] for p in predictions]), examples)

    def baseline(
        self, train: Sequence[TextExample], examples: Sequence[TextExample]
    ) -> dict[str, float]:
        """Scores of the mean of the training examples."""
        mean = np.mean([self.number(x) for x in train])
        return self._scores(np.full(len(examples), mean), examples)

    def _scores(self, predicted: np.ndarray, examples: Sequence[TextExample]) -> dict[str, float]:
        true = np.array([self.number(x) for x in examples])
        error = float(np.mean(np.square(predicted - true)))
        return metrics.correlations(predicted, true) | {"squared_error": error}

    def transformers_config(self, length: int) -> dict[str, Any]:
        """One output, which is the score."""
        return label_entries(("score",), self.config.classifier_dropout_prob) | {
            "problem_type": "regression"
        }
