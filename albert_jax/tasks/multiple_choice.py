"""Multiple choice: RACE, SWAG, and questions with a list of choices (run_race.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.sources import hub_datasets
from albert_jax.data.sources.tables import read_records
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import features as rows
from albert_jax.tasks import metrics
from albert_jax.tasks.choice_files import ChoiceExample, from_hub, from_record, is_race, read_race
from albert_jax.tasks.columns import parse_parts
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
    needs_pooled_cls,
)

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import Loss
    from albert_jax.tasks.encoder import Encoder


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
    pooling: Literal["cls", "mean"] = "cls"
    """Judge a choice by its pooled [CLS], or by the mean of its tokens."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout in front of the head while training."""


@dataclass(frozen=True)
class ChoiceFeature:
    """The sequences of one question's choices, and the number of the right one."""

    choices: tuple[Tokens, ...]
    label: int | None


@register
class MultipleChoice(Task[MultipleChoiceConfig, ChoiceExample, ChoiceFeature]):
    """Choose the right one of several endings of a context."""

    name = "multiple-choice"
    config_class = MultipleChoiceConfig
    metrics = ("accuracy",)
    page_form = PageForm(fields=("context", "choice"), repeat_last=True)

    def read_examples(self, path: str, *, labelled: bool) -> list[ChoiceExample]:
        """Questions of RACE, of a hub dataset, or of the general or SWAG form."""
        limit = self.config.max_choices
        if hub_datasets.is_hub_dataset(path):
            records = hub_datasets.load_records(path)
            examples = [x for record in records for x in from_hub(record, limit, labelled)]
        elif is_race(path):
            examples = read_race(path, limit, labelled)
        else:
            records = read_records(path, self.config.columns)
            examples = [from_record(record, limit, labelled) for record in records]
        for example in examples:
            if labelled and example.label is None:
                raise DataError(
                    f"{example.where}: no answer; add the number or letter of the choice"
                )
        return examples

    def parse_line(self, line: str, where: str) -> ChoiceExample:
        """Context and choices with tabs between them."""
        context, *endings = parse_parts(line, where, self.name, 3, 1 + self.config.max_choices)
        return ChoiceExample(where, context, tuple(endings))

    def texts(self, example: ChoiceExample) -> Sequence[str]:
        """Context and endings."""
        return (example.context, *example.endings)

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[ChoiceExample], length: int
    ) -> list[ChoiceFeature]:
        """[CLS] context [SEP] ending [SEP], one sequence per choice (race_utils.py).

        An ending keeps its last `max_qa_length` tokens, and the context is truncated to what
        room is left.
        """
        longest = self.config.max_qa_length
        if length < longest + 3:
            raise ConfigError(
                f"task.max_qa_length {longest} leaves no room in rows of {length}: lower it"
            )
        ids = rows.encode_all(vocabulary, (t for x in examples for t in self.texts(x)))
        features = []
        for example in examples:
            context = rows.require_tokens(ids(example.context), example.where, example.context)
            choices = []
            for ending in example.endings:
                tail = rows.require_tokens(ids(ending), example.where, ending)
                tail = tail[-self.config.max_qa_length :]
                kept = context[: max(0, length - 3 - len(tail))]
                choices.append(rows.pair(vocabulary, kept, tail, length))
            features.append(ChoiceFeature(tuple(choices), example.label))
        return features

    def feature_length(self, feature: ChoiceFeature) -> int:
        """The longest choice decides."""
        return max(len(choice.ids) for choice in feature.choices)

    def collate(self, features: Sequence[ChoiceFeature], spec: BatchSpec) -> Batch:
        """Grouped rows [batch_size, max_choices, length] with labels and example_weights.

        choice_mask float32 [batch_size, max_choices] is 0 where there is no choice.
        """
        choices = [feature.choices for feature in features]
        batch = rows.grouped_rows(choices, self.config.max_choices, spec.length, spec.batch_size)
        batch["labels"] = rows.label_column([f.label for f in features], spec.batch_size, np.int32)
        batch["choice_mask"] = (batch["segment_ids"][:, :, 0] > 0).astype(np.float32)
        batch["example_weights"] = rows.example_weights(len(features), spec.batch_size)
        return batch

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """One dense layer with one output."""
        from albert_jax.tasks.encoder import dense_shapes

        return {"classifier": dense_shapes(hidden_size, 1)}

    def pretrained_modules(self) -> tuple[str, ...]:
        """The pooler, unless the mean of the tokens is used."""
        return ("pooler",) if self.config.pooling == "cls" else ()

    def logits(
        self, encoder: Encoder, params: Any, batch: Any, dropout: Any, num_layers: int | None
    ) -> Any:
        """Logits of the choices [B, max_choices], with dropout where there are keys for it."""
        import jax.numpy as jnp

        from albert_jax.tasks.encoder import NEGATIVE, dropped_dense, flatten_groups, group_keys

        size = batch["input_ids"].shape[1]
        flat, keys = flatten_groups(batch), group_keys(dropout, size)
        hidden = encoder.hidden_states(params, flat, keys, num_layers)
        pooled = encoder.pool(params, hidden, flat, self.config.pooling)
        layer = params["head"]["classifier"]
        logits = dropped_dense(layer, pooled, keys, self.config.classifier_dropout_prob).reshape(
            -1, size
        )
        # A padding row has no choice at all: its logits stay as they are, and its weight is 0.
        present = jnp.any(batch["choice_mask"] > 0, axis=1, keepdims=True)
        return jnp.where(present & (batch["choice_mask"] == 0), NEGATIVE, logits)

    def loss(self, encoder: Encoder) -> Loss:
        """Cross-entropy over the choices of a row; term "choice"."""
        from albert_jax.tasks.encoder import classification_terms

        def loss(params: Any, batch: Any, *, dropout: Any, num_layers: int | None) -> Any:
            logits = self.logits(encoder, params, batch, dropout, num_layers)
            weights = batch["example_weights"]
            return classification_terms(
                "choice", logits, batch["labels"], weights, "example_weights"
            )

        return loss

    def outputs(
        self, encoder: Encoder, params: Any, batch: Any, num_layers: int | None = None
    ) -> Any:
        """Logits [B, G]; where there is no choice they are far below all others."""
        return self.logits(encoder, params, batch, None, num_layers)

    def predict(
        self, examples: Sequence[ChoiceExample], features: Sequence[ChoiceFeature], outputs: Any
    ) -> list[Prediction]:
        """Number of the chosen ending and its probability."""
        predictions = []
        for example, row in zip(examples, metrics.softmax(outputs), strict=True):
            number = int(row[: len(example.endings)].argmax())
            predictions.append({"choice": number, "probability": float(row[number])})
        return predictions

    def score(
        self, examples: Sequence[ChoiceExample], predictions: Sequence[Prediction]
    ) -> dict[str, float]:
        """Accuracy, and that of each named part."""
        return _accuracies(np.array([p["choice"] for p in predictions]), examples)

    def baseline(
        self, train: Sequence[ChoiceExample], examples: Sequence[ChoiceExample]
    ) -> dict[str, float]:
        """Scores of the commonest answer of the training examples."""
        return _accuracies(
            metrics.commonest([x.label or 0 for x in train], len(examples)), examples
        )

    def transformers_class(self) -> TransformersClass:
        """AlbertForMultipleChoice, which reads the pooled [CLS]."""
        cls = TransformersClass(
            name="AlbertForMultipleChoice",
            auto="AutoModelForMultipleChoice",
            modules=("pooler",),
            head=("classifier", "classifier"),
            pipeline="multiple-choice",
        )
        return needs_pooled_cls(cls, self.config.pooling)

    def card_lines(self) -> list[str]:
        """How a row is laid out."""
        line = "A row holds one choice: the context, then question and choice as one text."
        return [*super().card_lines(), line]

    def transformers_config(self, length: int) -> dict[str, Any]:
        """The head's dropout."""
        return {"classifier_dropout_prob": float(self.config.classifier_dropout_prob)}

    def graph_inputs(self) -> dict[str, Axes]:
        """Grouped rows."""
        names = super().graph_inputs()
        return dict.fromkeys(names, ("batch", "choices", "length"))

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of the choices."""
        return {"logits": ("batch", "choices")}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The dense layer on each choice, with empty choices out of the running."""
        vectors = graph.sentence_vector(hidden, self.config.pooling)
        return [graph.masked_choices(graph.dense(vectors, "head/classifier"))]


def _accuracies(predicted: np.ndarray, examples: Sequence[ChoiceExample]) -> dict[str, float]:
    true = np.array([x.label for x in examples])
    return metrics.accuracy_by_group(predicted, true, [x.group for x in examples])
