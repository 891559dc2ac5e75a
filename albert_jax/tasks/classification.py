"""Classification and regression of texts or pairs of texts (GLUE's tasks; run_classifier.py)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.config_fields import bounded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import columns, metrics, rows, typed_line
from albert_jax.tasks.support.columns import LABEL_NAMES, SCORE_NAMES, TableConfig, TextExample
from albert_jax.tasks.support.page_form import PAIRS, PageForm
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass, usage
from albert_jax.tasks.task import Axes, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import LossTerms
    from albert_jax.tasks.support.encoder import Encoder


SAME_SPREAD = 0.1
"""Predicted scores that differ by less than this share of the true ones say nothing."""


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(TableConfig):
    """Settings of regression, and of what classification shares with it."""

    name: str = "regression"
    """The task."""
    pooling: Literal["cls", "mean"] = "mean"
    """Judge a text by its pooled [CLS], or by the mean of its tokens."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout in front of the head while training."""
    num_texts: int = bounded(0, 0, 2)
    """Texts of an example, one or two; 0: as many as the training examples have."""
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
    label_names: tuple[str, ...] = ()
    """Names of the labels in predictions, in the same order (such as negative and positive for 0
    and 1); empty: the labels themselves."""
    teacher: str = ""
    """Run that was fine-tuned to the same classification, from which this one learns too."""
    distillation_weight: float = bounded(0.5, 0.0, 1.0)
    """Share of the teacher's labels in the loss; the rest is the examples' own."""
    distillation_temperature: float = bounded(2.0, 1e-2, 1e2)
    """Divides both logits where they are compared."""
    hidden_state_weight: float = bounded(1.0, 0.0)
    """Weight of the loss between hidden states of teacher and student; 0 leaves it out."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError for a label or name that is given twice, or a name without a label."""
        super().validate(where)
        columns.check_labels(self.labels, f"{where}.labels")
        columns.check_labels(self.label_names, f"{where}.label_names")
        if self.labels and self.label_names and len(self.labels) != len(self.label_names):
            raise ConfigError(
                f"{where}.label_names has {len(self.label_names)} names, but the labels are "
                f"{', '.join(self.labels)}: name each of them, in this order"
            )


@dataclass(frozen=True)
class TextFeature:
    """A text or pair as tokens, with its class number or score (None if unknown)."""

    tokens: rows.TokenSequence
    label: float | None


H = TypeVar("H", bound=RegressionConfig)


class _TextTask(Task[H, TextExample, TextFeature]):
    """The base of classification and regression: one vector per text, and a dense layer on it."""

    page = PageForm(
        title="Classification",
        fields=("text", "second text (optional)"),
        examples={
            "en": (
                ("The food was cold, and nobody said sorry.",),
                ("I have never slept so well in a hotel.",),
                ("The bakery opens after sunrise.", "The bakery opens before sunrise."),
            ),
            "zh": (
                ("菜凉了，也没有人道歉。",),
                ("我从来没有在酒店睡得这么香。",),
                ("面包店日出后开门。", "面包店日出前开门。"),
            ),
        },
    )
    transformers = TransformersClass(
        name="AlbertForSequenceClassification",
        modules=("pooler",),
        head=("classifier", "classifier"),
        pipeline="text-classification",
    )
    label_names: ClassVar[tuple[str, ...]]
    """Usual names of the label's column."""
    label_dtype: ClassVar[type]
    """Type of the labels in a batch."""

    def read_examples(self, path: str, *, labelled: bool) -> list[TextExample]:
        """Texts of a table or hub dataset, with their labels."""
        return columns.read_texts(path, self.config, self.label_names, labelled=labelled)

    def read_for_prediction(self, path: str, names: tuple[str, ...] | None) -> list[TextExample]:
        """Texts of a table with or without the label's column, or the lines of a .txt."""
        try:
            return columns.read_unlabeled(path, self.config, self.label_names, names)
        except DataError:
            lines = [] if names else columns.lines_without_header(path)
            if not lines:
                raise
            return [self.parse_line(line, f"{path}:{n}") for n, line in lines]

    def parse_line(self, line: str, where: str) -> TextExample:
        """One text, or two with a tab between them."""
        least = self.config.num_texts or 1
        return TextExample(
            where, typed_line.parse_parts(line, where, self.name, least, self.config.num_texts or 2)
        )

    def resolve(self, train: Sequence[TextExample], dev: Sequence[TextExample]) -> Self:
        """Adds how many texts the training examples have."""
        found = len(train[0].texts)
        if self.config.num_texts not in (0, found):
            raise ConfigError(f"task.num_texts: the examples have {found}: leave it out")
        return super().resolve(train, dev).with_config(num_texts=found)

    @abc.abstractmethod
    def number(self, example: TextExample) -> float:
        """The label as a number. Raises DataError."""

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[TextExample], length: int
    ) -> list[TextFeature]:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""
        features = []
        for example, texts in rows.encode_texts(vocabulary, examples, self.texts):
            if len(texts) < self.config.num_texts:
                raise DataError(
                    f"{example.where}: one text, but this model compares two: give both of them"
                )
            label = None if example.label is None else self.number(example)
            features.append(TextFeature(rows.sequence(vocabulary, texts, length), label))
        return features

    def collate(self, features: Sequence[TextFeature], spec: BatchSpec) -> rows.Batch:
        """Rows with labels [batch_size] and example_weights."""
        tokens = [feature.tokens for feature in features]
        batch = rows.sequence_rows(tokens, spec.length, spec.batch_size)
        labels = [feature.label for feature in features]
        return batch | rows.label_columns(labels, spec.batch_size, self.label_dtype)

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Outputs of the head [B, C]."""
        return self.head_logits(encoder, encoder.hidden_states(batch), batch)

    def head_logits(self, encoder: Encoder, hidden: Any, batch: Any) -> Any:
        """Outputs of the head [B, C] for hidden states [B, S, H]."""
        pooled = encoder.pool(hidden, batch, self.config.pooling)
        return encoder.classifier(pooled, self.config.classifier_dropout_prob)

    def transformers_class(self) -> TransformersClass:
        """AlbertForSequenceClassification, or that of tokens for the mean of their outputs."""
        if self.config.pooling == "cls":
            cls = super().transformers_class()
            if self.config.num_texts < 2:
                return cls  # The pipeline of Transformers applies it.
            lines = ("print(model.config.id2label, model(**inputs).logits)",)
        else:
            # The head is linear: the mean of its outputs for the tokens is that for their mean.
            cls = TransformersClass(
                name="AlbertForTokenClassification", head=("classifier", "classifier")
            )
            lines = (
                'real = inputs["attention_mask"].unsqueeze(-1)',
                "logits = (model(**inputs).logits * real).sum(1) / real.sum(1)",
                "print(model.config.id2label, logits)",
            )
        return replace(cls, usage=usage(cls.auto, self.config.num_texts, *lines))

    def transformers_config(self, length: int) -> dict[str, Any]:
        """Names of the outputs, and the kind of the problem."""
        kind = "single_label_classification" if self.classifies else "regression"
        return super().transformers_config(length) | {"problem_type": kind}

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Outputs of the head for each text."""
        return {"logits": ("batch", len(self.output_names))}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The dense layer on the vector of the text."""
        return [graph.dense(graph.sentence_vector(hidden, self.config.pooling), "head/classifier")]


@register
class Classification(_TextTask[ClassificationConfig]):
    """Choose one of several labels for a text or a pair of texts."""

    name = "classification"
    config_class = ClassificationConfig
    metrics = ("accuracy", "f1", "matthews")
    classifies = True
    label_names = LABEL_NAMES + SCORE_NAMES
    label_dtype = np.int32
    loss_name = "class"

    def resolve(self, train: Sequence[TextExample], dev: Sequence[TextExample]) -> Self:
        """Adds the labels of the training examples, of which there must be two."""
        labels = self.config.labels or columns.label_set(train)
        if len(labels) < 2:
            raise DataError(
                f"{train[0].where}: {len(labels)} label in all training examples; "
                "at least two are needed"
            )
        return super().resolve(train, dev).with_config(labels=labels)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the labels in predictions."""
        return self.config.label_names or self.config.labels

    def number(self, example: TextExample) -> float:
        """Index of the label."""
        return columns.label_index(example.where, example.label, self.config.labels)

    def predict(
        self, examples: Sequence[TextExample], features: Sequence[TextFeature], outputs: Any
    ) -> list[Prediction]:
        """The most probable label with its probability, and the probabilities of all labels."""
        from scipy.special import softmax  # It takes a tenth of a second to import.

        labels = self.output_names
        return [
            {
                "label": labels[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": dict(zip(labels, row.tolist(), strict=True)),
            }
            for row in softmax(np.asarray(outputs, np.float64), axis=-1)
        ]

    def truth(self, example: TextExample) -> str | None:
        """The label."""
        return self.output_names[int(self.number(example))]

    def score(self, examples: Sequence[TextExample], predictions: Sequence[Prediction]) -> Scores:
        """Accuracy, F1 and Matthews correlation."""
        predicted = np.array([self.output_names.index(p["label"]) for p in predictions])
        return metrics.classification(predicted, self._numbers(examples), len(self.config.labels))

    def baseline(self, train: Sequence[TextExample], examples: Sequence[TextExample]) -> Scores:
        """Scores of the commonest training label."""
        label = self.output_names[metrics.commonest(self._numbers(train))]
        return self.score(examples, [{"label": label}] * len(examples))

    def _numbers(self, examples: Sequence[TextExample]) -> np.ndarray:
        return np.array([int(self.number(x)) for x in examples])


@register
class Regression(_TextTask[RegressionConfig]):
    """Predict a number for a text or a pair of texts (STS-B)."""

    name = "regression"
    page = PageForm(
        title="Score of a text or of two texts",
        fields=_TextTask.page.fields,
        examples=PAIRS,
    )
    config_class = RegressionConfig
    metrics = ("pearson", "spearman")
    label_names = SCORE_NAMES + LABEL_NAMES
    label_dtype = np.float32

    @property
    def output_names(self) -> tuple[str, ...]:
        """The score."""
        return ("score",)

    def number(self, example: TextExample) -> float:
        """The score."""
        return columns.parse_score(example.where, example.label)

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        """Squared error of the score (classifier_utils.py, STS-B); term "squared_error"."""
        import jax.numpy as jnp

        from albert_jax.objectives.loss_terms import LossTerm, LossTerms

        scores = self.logits(encoder, batch)[:, 0]
        total = jnp.sum(batch["example_weights"] * jnp.square(scores - batch["labels"]))
        return LossTerms({"squared_error": LossTerm(total, "example_weights")}, {})

    def predict(
        self, examples: Sequence[TextExample], features: Sequence[TextFeature], outputs: Any
    ) -> list[Prediction]:
        """The score."""
        return [{"score": float(row[0])} for row in np.asarray(outputs)]

    def single_answer(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> str:
        """The mean score, where predictions hardly differ from it."""
        predicted = np.array([p["score"] for p in predictions])
        spread = float(np.std([self.number(x) for x in examples]))
        same = float(np.std(predicted)) < SAME_SPREAD * spread
        return f"about {np.mean(predicted):.2f}" if same else ""

    def score(self, examples: Sequence[TextExample], predictions: Sequence[Prediction]) -> Scores:
        """Correlations and mean squared error."""
        predicted = np.array([p["score"] for p in predictions])
        true = np.array([self.number(x) for x in examples])
        error = float(np.mean(np.square(predicted - true)))
        return metrics.correlations(predicted, true) | {"squared_error": error}

    def baseline(self, train: Sequence[TextExample], examples: Sequence[TextExample]) -> Scores:
        """Scores of the mean of the training examples."""
        mean = float(np.mean([self.number(x) for x in train]))
        return self.score(examples, [{"score": mean}] * len(examples))
