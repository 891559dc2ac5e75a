"""Multiple choice: RACE, SWAG, and questions with a list of choices (run_race.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import metrics, rows, typed_line
from albert_jax.tasks.support.choice_files import ChoiceExample, read_choices
from albert_jax.tasks.support.page_form import PageForm
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.tasks.support.encoder import Encoder

MAX_PARTS = 1000
"""Most parts of a typed line."""


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceConfig(TaskConfig):
    """Settings of multiple choice."""

    name: str = "multiple-choice"
    """The task."""
    columns: tuple[str, ...] = ()
    """Names of a table's columns, in order, if it has no header."""
    max_choices: int = bounded(4, 2)
    """Most choices of a question."""
    max_qa_length: int = bounded(128, 1)
    """Last tokens that are kept of question and choice."""
    pooling: Literal["cls", "mean"] = "mean"
    """Judge a choice by its pooled [CLS], or by the mean of its tokens."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout in front of the head while training."""


@dataclass(frozen=True)
class ChoiceFeature:
    """The sequences of one question's choices, and the number of the right one."""

    choices: tuple[rows.TokenSequence, ...]
    label: int | None


@register
class MultipleChoice(Task[MultipleChoiceConfig, ChoiceExample, ChoiceFeature]):
    """Choose the right one of several endings of a context."""

    name = "multiple-choice"
    config_class = MultipleChoiceConfig
    metrics = ("accuracy",)
    loss_name = "choice"
    page = PageForm(
        title="Multiple choice",
        fields=("context", "choice"),
        repeats_last=True,
        examples={
            "en": (
                (
                    "It was dark, and Ali could not find the keyhole. What would have helped him?",
                    "a torch\na hat\na ladder",
                ),
            ),
            "zh": (("天黑了，阿里找不到钥匙孔。什么能帮他？", "手电筒\n帽子\n梯子"),),
        },
    )
    card_note = "A row holds one choice: the context, then question and choice as one text."
    transformers = TransformersClass(
        name="AlbertForMultipleChoice",
        modules=("pooler",),
        head=("classifier", "classifier"),
        pipeline="multiple-choice",
    )
    graph_inputs = dict.fromkeys(Task.graph_inputs, ("batch", "choices", "length"))

    def read_examples(self, path: str, *, labelled: bool) -> list[ChoiceExample]:
        """Questions of RACE, of a hub dataset, or of the general or SWAG form."""
        return read_choices(path, self.config.columns, self.config.max_choices, labelled)

    def parse_line(self, line: str, where: str) -> ChoiceExample:
        """Context and choices with tabs between them."""
        context, *endings = typed_line.parse_parts(line, where, self.name, 1, MAX_PARTS)
        if not 2 <= len(endings) <= self.config.max_choices:
            raise DataError(
                f"{where}: {len(endings)} choices after the context: give 2 to "
                f"{self.config.max_choices}"
            )
        return ChoiceExample(where, context, tuple(endings))

    def texts(self, example: ChoiceExample) -> Sequence[str]:
        """Context and endings."""
        return (example.context, *example.endings)

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[ChoiceExample], length: int
    ) -> list[ChoiceFeature]:
        """[CLS] context [SEP] ending [SEP], one sequence per choice (race_utils.py).

        An ending keeps its last `max_qa_length` tokens, and the context is truncated to the rest.
        """
        longest = self.config.max_qa_length
        if length < longest + 3:
            raise ConfigError(
                f"task.max_qa_length {longest} leaves no space for a context in rows of {length}: "
                "lower it"
            )
        features = []
        for example, (context, *endings) in rows.encode_texts(vocabulary, examples, self.texts):
            choices = []
            for ending in endings:
                texts = [context[: length - 3 - len(ending[-longest:])], ending[-longest:]]
                row = rows.sequence(vocabulary, texts, length)
                is_truncated = sum(map(len, texts)) < len(context) + len(ending)
                choices.append(replace(row, is_truncated=is_truncated))
            features.append(ChoiceFeature(tuple(choices), example.label))
        return features

    def feature_length(self, feature: ChoiceFeature) -> int:
        """The longest choice decides."""
        return max(len(choice.ids) for choice in feature.choices)

    def is_truncated(self, feature: ChoiceFeature) -> bool:
        """One of the choices is enough."""
        return any(choice.is_truncated for choice in feature.choices)

    def fitting_settings(self, length: int) -> dict[str, int]:
        """Question and choice take at most half of a row."""
        return {"max_qa_length": length // 2}

    def collate(self, features: Sequence[ChoiceFeature], spec: BatchSpec) -> rows.Batch:
        """Grouped rows [batch_size, max_choices, length] with labels and example_weights.

        choice_mask float32 [batch_size, max_choices] is 0 where there is no choice.
        """
        choices = [feature.choices for feature in features]
        batch = rows.grouped_rows(choices, self.config.max_choices, spec.length, spec.batch_size)
        batch["choice_mask"] = (batch["segment_ids"][:, :, 0] > 0).astype(np.float32)
        labels = [feature.label for feature in features]
        return batch | rows.label_columns(labels, spec.batch_size, np.int32)

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """One dense layer with one output."""
        return {"classifier": {"kernel": (hidden_size, 1), "bias": (1,)}}

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Logits of the choices [B, max_choices], far below all others where there is none."""
        import jax.numpy as jnp

        size = batch["input_ids"].shape[1]
        encoder, flat = encoder.flattened(batch)
        pooled = encoder.pool(encoder.hidden_states(flat), flat, self.config.pooling)
        logits = encoder.classifier(pooled, self.config.classifier_dropout_prob)
        # A padding row has no choice at all: its logits stay as they are, and its weight is 0.
        present = jnp.any(batch["choice_mask"] > 0, axis=1, keepdims=True)
        absent = present & (batch["choice_mask"] == 0)
        return jnp.where(absent, rows.NEGATIVE, logits.reshape(-1, size))

    def predict(
        self, examples: Sequence[ChoiceExample], features: Sequence[ChoiceFeature], outputs: Any
    ) -> list[Prediction]:
        """Number of the chosen ending with its probability, and the probabilities of all."""
        from scipy.special import softmax

        predictions = []
        shares = softmax(np.asarray(outputs, np.float64), axis=-1)
        for example, row in zip(examples, shares, strict=True):
            probabilities = row[: len(example.endings)].tolist()
            number = int(np.argmax(probabilities))
            predictions.append(
                {
                    "choice": number,
                    "probability": probabilities[number],
                    "probabilities": probabilities,
                }
            )
        return predictions

    def score(self, examples: Sequence[ChoiceExample], predictions: Sequence[Prediction]) -> Scores:
        """Accuracy, and "accuracy_GROUP" of each named group (RACE's levels)."""
        correct = np.array(
            [p["choice"] == x.label for p, x in zip(predictions, examples, strict=True)]
        )
        groups = np.array([x.group for x in examples])
        scores = {"accuracy": float(correct.mean())}
        for name in sorted({*groups.tolist()} - {""}):
            scores[f"accuracy_{name}"] = float(correct[groups == name].mean())
        return scores

    def baseline(self, train: Sequence[ChoiceExample], examples: Sequence[ChoiceExample]) -> Scores:
        """Scores of the majority class of the training examples."""
        number = metrics.commonest([x.label for x in train])
        return self.score(examples, [{"choice": number}] * len(examples))

    def transformers_config(self, length: int) -> dict[str, Any]:
        """The head's dropout."""
        return {"classifier_dropout_prob": float(self.config.classifier_dropout_prob)}

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of the choices."""
        return {"logits": ("batch", "choices")}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The dense layer on each choice, with empty choices out of the running."""
        vectors = graph.sentence_vector(hidden, self.config.pooling)
        return [graph.masked_choices(graph.dense(vectors, "head/classifier"))]
