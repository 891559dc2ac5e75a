"""The interface of fine-tuning tasks: one class that holds all that other packages ask of it.

A task file (``classification.py``, for example) reads from top to bottom as its examples travel:
read, featurize, collate, the head with its loss, predict, score. Nothing outside the file decides
anything by a task's name. Reading, predicting and scoring run on the host with numpy, so jax is
imported only inside the methods that describe the network.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.errors import ConfigError
from albert_jax.tasks.support.page_form import PageForm
from albert_jax.tasks.support.rows import Batch, BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary
    from albert_jax.objectives.loss_terms import LossTerms
    from albert_jax.tasks.support.encoder import Encoder
    from albert_jax.tasks.support.prediction import Sampling

Prediction = dict[str, Any]
"""The prediction for one example, ready for JSON."""
Scores = dict[str, float]
Forward = Callable[[Batch], Any]
"""A batch to the task's ``outputs`` as numpy arrays, one entry per row."""
Axes = tuple[str | int, ...]
"""Names ("batch", "length") or sizes of an array's axes."""

C = TypeVar("C", bound=TaskConfig)
E = TypeVar("E")
F = TypeVar("F")


class Task(abc.ABC, Generic[C, E, F]):
    """One fine-tuning task under its settings, of type C, with examples E and features F.

    Shapes: B batch size, S sequence length, H hidden size.
    """

    name: ClassVar[str]
    """The value of task.name."""
    config_class: ClassVar[type[TaskConfig]]
    """The class of its settings; fields that it does not have are refused."""
    metrics: ClassVar[tuple[str, ...]]
    """Names of the usual scores; the first selects the best checkpoint."""
    greater_is_better: ClassVar[bool] = True
    """Direction in which the first score improves."""
    confidence_interval: ClassVar[bool] = True
    """True if scores are cheap enough to be resampled for an interval."""
    classifies: ClassVar[bool] = False
    """True if `head_logits` gives a logit per label (for early exit, explanations, teachers)."""
    ranks_answers: ClassVar[bool] = False
    """True if predictions list several answers, the most probable first, as "best"."""
    embeds: ClassVar[bool] = False
    """True if `logits` is the vector of a text."""
    generates: ClassVar[bool] = False
    """True if denoising steps and a temperature can be set."""
    page: ClassVar[PageForm] = PageForm()
    """The form in which the web page asks for an example."""
    loss_name: ClassVar[str]
    """Name of the usual loss, the cross-entropy of `logits`."""
    label_column: ClassVar[str] = "labels"
    """Name of the column of a batch with the labels of the loss."""
    weight_column: ClassVar[str] = "example_weights"
    """Name of the column of a batch with the weights of the labels."""

    transformers: ClassVar[TransformersClass | None] = None
    """The class of Transformers with this head, where there is one."""
    card_note: ClassVar[str] = ""
    """A sentence of the model card, with settings in braces."""
    graph_inputs: ClassVar[dict[str, Axes]] = dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), ("batch", "length")
    )
    """Names and axes of the inputs in ONNX and StableHLO."""

    def __init__(self, config: C) -> None:
        self.config = config

    def with_config(self, **changes: Any) -> Self:
        """The task with other values of some settings."""
        return type(self)(dataclasses.replace(self.config, **changes))

    # ---- examples ------------------------------------------------------------------------------

    @abc.abstractmethod
    def read_examples(self, path: str, *, labelled: bool) -> list[E]:
        """Examples of a file or hub dataset; answers are required and read only if `labelled`.

        Raises DataError, which names file and line, and ConfigError.
        """

    @abc.abstractmethod
    def parse_line(self, line: str, where: str) -> E:
        """The example in one typed line, its parts separated by tabs; DataError names `where`."""

    def read_for_prediction(self, path: str, names: tuple[str, ...] | None) -> list[E]:
        """Examples without answers; the columns have these names, not those of training, if any."""
        if names is not None and not hasattr(self.config, "columns"):
            raise ConfigError(f"--columns: {self.name} does not read tables; leave it out")
        task = self if names is None else self.with_config(columns=names)
        return task.read_examples(path, labelled=False)

    def resolve(self, train: Sequence[E], dev: Sequence[E]) -> Self:
        """The task with labels and metrics filled in from the examples.

        Raises ConfigError for a metric that the task and its dev examples do not have.
        """
        return self.with_metrics(self.metrics)

    def with_metrics(self, known: tuple[str, ...]) -> Self:
        """The task with its metrics checked against `known`, which are also the default."""
        unknown = [name for name in self.config.metrics if name not in known]
        if unknown:
            raise ConfigError(
                f"task.metrics: {unknown[0]!r} is not a score of {self.name} on these dev examples"
                f": give {', '.join(known)}"
            )
        return self.with_config(metrics=self.config.metrics or known)

    @property
    def teacher(self) -> str:
        """The run whose outputs the task learns to reproduce; "" if there is none."""
        return getattr(self.config, "teacher", "")

    @property
    def augment(self) -> int:
        """Copies of each training example in which a masked-language model replaces words."""
        return getattr(self.config, "augment", 0)

    def texts(self, example: E) -> Sequence[str]:
        """All texts of an example, for a vocabulary that is trained on them."""
        return example.texts  # type: ignore[attr-defined]

    # ---- features and batches ------------------------------------------------------------------

    @abc.abstractmethod
    def featurize(self, vocabulary: Vocabulary, examples: Sequence[E], length: int) -> list[F]:
        """Features of examples for rows of `length` tokens. Raises DataError and ConfigError."""

    def feature_length(self, feature: F) -> int:
        """Tokens that a row needs to hold the feature."""
        return len(feature.tokens.ids)  # type: ignore[attr-defined]

    def example_number(self, feature: F) -> int | None:
        """Index of the example that a feature is of; None if there is one per example, in order."""
        return None

    def is_truncated(self, feature: F) -> bool:
        """Returns whether the texts of the feature are longer than a row and lost tokens."""
        return feature.tokens.is_truncated  # type: ignore[attr-defined]

    def fitting_settings(self, length: int) -> dict[str, int]:
        """The largest values of those settings that rows of `length` tokens limit."""
        return {}

    @property
    def features_per_row(self) -> int:
        """Number of features in one row."""
        return 1

    @property
    def shortest_length(self) -> int:
        """Fewest tokens of a row that ``outputs`` can read."""
        return 1

    @abc.abstractmethod
    def collate(self, features: Sequence[F], spec: BatchSpec) -> Batch:
        """A batch of features; the columns of weights end in "_weights"."""

    def for_prediction(self) -> Self:
        """The task as examples are evaluated and predicted."""
        return self

    # ---- the network ---------------------------------------------------------------------------

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the C outputs of a dense head: the labels of the config, if it has any."""
        return getattr(self.config, "labels", ())

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """Shapes of the new head's parameters: a dense layer "classifier" if outputs have names."""
        size = len(self.output_names)
        return {"classifier": {"kernel": (hidden_size, size), "bias": (size,)}} if size else {}

    def pretrained_modules(self) -> tuple[str, ...]:
        """Pretrained modules used beside embeddings and encoder: the pooler for pooling "cls"."""
        return ("pooler",) if getattr(self.config, "pooling", "") == "cls" else ()

    @property
    def predicted_positions(self) -> int:
        """Positions per row at which the MLM head predicts, for the count of FLOPs."""
        return 0

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Logits [B, ..., C], from which the usual loss and outputs are made."""
        raise NotImplementedError

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        """The loss of a batch; by default the cross-entropy of `logits` with the labels.

        It also returns the summed weight of the right answers, as "NAME_correct" for weights
        "NAME_weights".
        """
        import jax.numpy as jnp

        from albert_jax.objectives.loss_terms import LossTerm, LossTerms, cross_entropy

        logits = self.logits(encoder, batch)
        labels, weights = batch[self.label_column], batch[self.weight_column]
        correct = jnp.sum(weights * (jnp.argmax(logits, -1) == labels))
        total = jnp.sum(weights * cross_entropy(logits, labels))
        name = self.weight_column.replace("_weights", "_correct")
        return LossTerms({self.loss_name: LossTerm(total, self.weight_column)}, {name: correct})

    def outputs(self, encoder: Encoder, batch: Any) -> Any:
        """Arrays (one, or a tuple) that ``predict`` reads, one entry per row."""
        return self.logits(encoder, batch)

    def head_logits(self, encoder: Encoder, hidden: Any, batch: Any) -> Any:
        """Logits of the labels [B, C] for hidden states [B, S, H] of any layer."""
        raise NotImplementedError

    # ---- predictions and scores ----------------------------------------------------------------

    def forward(
        self, features: Sequence[Any], run: Forward, spec: BatchSpec, sampling: Sampling
    ) -> list[Any]:
        """The outputs of each feature of one batch (a tuple each, where there are several)."""
        arrays = run(self.collate(features, spec))
        if isinstance(arrays, tuple):
            columns = (np.asarray(array)[: len(features)] for array in arrays)
            return list(zip(*columns, strict=True))
        return list(np.asarray(arrays)[: len(features)])

    @abc.abstractmethod
    def predict(
        self, examples: Sequence[E], features: Sequence[F], outputs: Any
    ) -> list[Prediction]:
        """One prediction per example. `outputs` are stacked over the features, in their order."""

    @abc.abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> Scores:
        """Named scores of predictions for labelled examples."""

    def answer(self, prediction: Prediction) -> str:
        """The part of a prediction that is right or wrong; by default its first value."""
        return str(next(iter(prediction.values())))

    def truth(self, example: E) -> str | None:
        """The right label of an example as predictions write it, where there are labels."""
        return None

    def evaluate(
        self, examples: Sequence[E], predictions: Sequence[Prediction]
    ) -> tuple[Scores, str]:
        """(scores, those of the config's metrics first; the one answer to all examples, or "" where
        answers differ or are all right)."""
        scores = self.score(examples, predictions)
        scores = {name: scores[name] for name in self.config.metrics if name in scores} | scores
        perfect = self.is_perfect(scores)
        return scores, "" if perfect else self.single_answer(examples, predictions)

    def is_perfect(self, scores: Scores) -> bool:
        """Returns whether these are the scores of right answers only."""
        return scores.get("accuracy") == 1.0

    def single_answer(self, examples: Sequence[E], predictions: Sequence[Prediction]) -> str:
        """The answer of all predictions, in words; "" where they differ."""
        answers = {self.answer(prediction) for prediction in predictions}
        if len(answers) > 1 or len(predictions) < 2:
            return ""
        answer = answers.pop()
        return repr(answer) if answer.strip() else "empty text"

    @property
    def has_baseline(self) -> bool:
        """Returns whether the task has a baseline."""
        return type(self).baseline is not Task.baseline

    def baseline(self, train: Sequence[E], examples: Sequence[E]) -> Scores:
        """Scores of the majority class of the training examples, where that makes sense."""
        raise NotImplementedError

    # ---- exports -------------------------------------------------------------------------------

    def transformers_class(self) -> TransformersClass:
        """The class of Transformers. Raises ConfigError where it has none with this head."""
        cls = self.transformers
        if cls is None:
            raise ConfigError(
                f"Transformers has no class with the head of {self.name}: export it --to onnx or "
                "stablehlo"
            )
        if not set(cls.modules) <= set(self.pretrained_modules()):
            raise ConfigError(
                f"Transformers' {cls.name} reads the pooled [CLS], but this model the mean of the "
                "tokens (task.pooling): export it --to onnx or stablehlo, or fine-tune with "
                "--task.pooling cls"
            )
        return cls

    def transformers_config(self, length: int) -> dict[str, Any]:
        """Entries that the task adds to config.json; rows have `length` tokens."""
        config: Any = self.config
        if not self.output_names:
            return {}
        return {
            "classifier_dropout_prob": float(config.classifier_dropout_prob),
            "id2label": {str(i): name for i, name in enumerate(self.output_names)},
            "label2id": {name: i for i, name in enumerate(self.output_names)},
        }

    def transformers_files(self, length: int, model: ModelConfig) -> dict[str, bytes]:
        """Further files beside the weights, by their path."""
        return {}

    def card_lines(self) -> list[str]:
        """Sentences on the task for the model card."""
        labels = ", ".join(self.output_names) if hasattr(self.config, "labels") else ""
        note = self.card_note.format(**vars(self.config))
        lines = [f"Fine-tuned for {self.name}.", f"Labels: {labels}." if labels else "", note]
        return [line for line in lines if line]

    @abc.abstractmethod
    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Names and axes of ``outputs`` in ONNX and StableHLO, in their order.

        All are float32, but for names that end in "_positions", which are integers.
        """

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """Adds the head to an ONNX graph (export/onnx_graph.py) after the states `hidden`.

        Returns the names of ``graph_outputs``. Raises ConfigError for a task without such a form.
        """
        raise ConfigError(f"{self.name} has no ONNX form: export it --to stablehlo")


AnyTask = Task[Any, Any, Any]
"""A task of which only the interface matters."""
