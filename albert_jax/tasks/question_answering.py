"""Question answering: the answer is a span of a context (SQuAD 1.1 and 2.0; squad_utils.py)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import answer_spans, rows, squad_metrics, typed_line
from albert_jax.tasks.support.answer_spans import WindowFeature
from albert_jax.tasks.support.page_form import PageForm
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.squad_files import Question, read_questions
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.objectives.loss_terms import LossTerms
    from albert_jax.tasks.support.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class SquadV1Config(TaskConfig):
    """Settings of SQuAD 1.1, and of what 2.0 shares with it."""

    name: str = "squad-v1"
    """The task."""
    doc_stride: int = bounded(128, 1)
    """Tokens from one window of a long context to the next."""
    max_query_length: int = bounded(64, 1)
    """First tokens that are kept of a question."""
    max_answer_length: int = bounded(30, 1)
    """Most tokens of an answer."""
    n_best_size: int = bounded(20, 1)
    """Answers per question that are ranked and written."""


@dataclass(frozen=True, kw_only=True)
class SquadV2Config(SquadV1Config):
    """Settings of SQuAD 2.0."""

    name: str = "squad-v2"
    """The task."""
    start_n_top: int = bounded(5, 1)
    """Starts that the beam search keeps."""
    end_n_top: int = bounded(5, 1)
    """Ends that it keeps for each start."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout inside the answerability head while training."""


Q = TypeVar("Q", bound=SquadV1Config)


class _Squad(Task[Q, Question, WindowFeature]):
    """The base of both versions: files, windows and batches."""

    confidence_interval = False
    ranks_answers = True
    page = PageForm(
        title="Question answering",
        fields=("question", "context"),
        examples={
            "en": (
                (
                    "Who built the first bridge?",
                    "The first bridge was built by monks in 1240. A flood destroyed it, and two "
                    "years later the town built a new one of stone.",
                ),
            ),
            "zh": (
                (
                    "第一座桥是谁建的？",
                    "第一座桥是僧人在1240年建的。洪水冲毁了它，两年后镇上又建了一座石桥。",
                ),
            ),
        },
    )

    def read_examples(self, path: str, *, labelled: bool) -> list[Question]:
        """Questions of a SQuAD file or of a hub dataset."""
        return read_questions(path, answered=labelled)

    def parse_line(self, line: str, where: str) -> Question:
        """Question and context with a tab between them."""
        question, context = typed_line.parse_parts(line, where, self.name, 2, 2)
        return Question(where, where, question, context)

    def texts(self, example: Question) -> Sequence[str]:
        """Question and context."""
        return (example.question, example.context)

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[Question], length: int
    ) -> list[WindowFeature]:
        """[CLS] question [SEP] window [SEP], for windows of the context that overlap.

        Raises ConfigError if question and special tokens leave no space for a context.
        """
        longest, stride = self.config.max_query_length, self.config.doc_stride
        if length < longest + 4:
            raise ConfigError(
                f"task.max_query_length {longest} leaves no space for a context in rows of "
                f"{length}: lower it or lengthen the rows"
            )
        if length < self.shortest_length:
            raise ConfigError(
                f"task.start_n_top and task.end_n_top must be at most {length}, the length of a "
                "row: lower them"
            )
        return answer_spans.window_features(vocabulary, examples, length, stride, longest)

    def example_number(self, feature: WindowFeature) -> int:
        """The question of the window."""
        return feature.question

    def fitting_settings(self, length: int) -> dict[str, int]:
        """A question takes at most half of a row, and windows overlap, as in the original's 384."""
        return {"max_query_length": length // 2, "doc_stride": length // 3}

    def collate(self, features: Sequence[WindowFeature], spec: BatchSpec) -> rows.Batch:
        """Rows with start_positions, end_positions, is_impossible, p_mask and example_weights.

        p_mask float32 [batch_size, length] is 1 where no answer can stand: everywhere but at
        [CLS] and in the context.
        """
        size = spec.batch_size
        batch = rows.sequence_rows([f.tokens for f in features], spec.length, size)
        batch["p_mask"] = np.ones((size, spec.length), np.float32)
        batch["p_mask"][:, 0] = 0
        for name in ("start_positions", "end_positions", "is_impossible"):
            batch[name] = np.zeros(size, np.int32)
        for i, feature in enumerate(features):
            batch["p_mask"][i, feature.offset : feature.offset + len(feature.starts)] = 0
            batch["start_positions"][i] = feature.start
            batch["end_positions"][i] = feature.end
            batch["is_impossible"][i] = feature.impossible
        batch["example_weights"] = rows.example_weights(len(features), size)
        return batch

    @abc.abstractmethod
    def top_spans(self, row: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Row positions of starts [K], of ends [K, J] for each, and their scores [K, J]."""

    def predict(
        self, examples: Sequence[Question], features: Sequence[WindowFeature], outputs: Any
    ) -> list[Prediction]:
        """Best text and n-best list; a question without windows has the answer ""."""
        texts: list[list[tuple[str, float]]] = [[] for _ in examples]
        for feature, *row in zip(features, *map(np.asarray, outputs), strict=True):
            texts[feature.question] += answer_spans.span_texts(
                feature,
                examples[feature.question].context,
                *self.top_spans(row),
                max_length=self.config.max_answer_length,
            )
        best = [answer_spans.rank(proposed, self.config.n_best_size) for proposed in texts]
        return [
            {"id": example.id, "text": answers[0]["text"] if answers else "", "best": answers}
            for example, answers in zip(examples, best, strict=True)
        ]

    def answer(self, prediction: Prediction) -> str:
        """The text."""
        return prediction["text"]

    def is_perfect(self, scores: Scores) -> bool:
        """Returns whether all answers are exact."""
        return 100.0 in (scores.get("exact"), scores.get("exact_match"))


@register
class SquadV1(_Squad[SquadV1Config]):
    """Answer questions that have an answer in their context; start and end are independent."""

    name = "squad-v1"
    config_class = SquadV1Config
    metrics = ("f1", "exact_match")
    transformers = TransformersClass(
        name="AlbertForQuestionAnswering",
        head=("span", "qa_outputs"),
        pipeline="question-answering",
    )

    def read_examples(self, path: str, *, labelled: bool) -> list[Question]:
        """Questions of which all have answers."""
        examples = super().read_examples(path, labelled=labelled)
        for example in examples if labelled else ():
            if not example.answers:
                raise DataError(f"{example.where}: no answer, which squad-v2 knows; use that task")
        return examples

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """A dense layer with outputs for start and end."""
        return {"span": {"kernel": (hidden_size, 2), "bias": (2,)}}

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Start and end logits [B, S], independent of one another."""
        from albert_jax.tasks.support.encoder import dense

        hidden = encoder.hidden_states(batch)
        both = dense(encoder.params["head"]["span"], hidden).astype("float32")
        return both[..., 0], both[..., 1]

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        """Half the cross-entropies of start and end; terms "start" and "end"."""
        from albert_jax.tasks.support.span_heads import span_loss

        start, end = self.logits(encoder, batch)
        return span_loss(start, end, batch)

    def top_spans(self, row: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """All pairs of the best starts and the best ends, the earlier of equally good ones."""
        size = self.config.n_best_size
        starts, ends = (np.argsort(-logits, kind="stable")[:size] for logits in row)
        scores = row[0][starts][:, None] + row[1][ends]
        return starts, np.broadcast_to(ends, scores.shape), scores

    def score(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> Scores:
        """F1 and exact match in percent."""
        return squad_metrics.squad_v1({p["id"]: p["text"] for p in predictions}, _gold(examples))

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of every token."""
        return {"start_logits": ("batch", "length"), "end_logits": ("batch", "length")}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The two outputs of the dense layer."""
        both = graph.dense(hidden, "head/span")
        return [graph.take(both, side, 2) for side in (0, 1)]


@register
class SquadV2(_Squad[SquadV2Config]):
    """Answer questions, or say that the context has no answer; the end depends on the start."""

    name = "squad-v2"
    config_class = SquadV2Config
    metrics = ("f1", "exact")
    graph_inputs = Task.graph_inputs | {"p_mask": ("batch", "length")}

    def head_shapes(self, hidden_size: int) -> dict[str, Any]:
        """Layers for the start, for the end that depends on it, and for answerability."""
        from albert_jax.tasks.support.encoder import dense_shapes

        h = hidden_size
        return {
            "start": dense_shapes(h, 1),
            "end": {
                "dense": dense_shapes(2 * h, h),
                "layer_norm": {"scale": (h,), "bias": (h,)},
                "output": dense_shapes(h, 1),
            },
            "answer": {"dense": dense_shapes(2 * h, h), "output": dense_shapes(h, 1, bias=False)},
        }

    def loss(self, encoder: Encoder, batch: Any) -> LossTerms:
        """Half the losses of start, end and answerability; terms of these names."""
        from albert_jax.tasks.support.span_heads import conditioned_span_loss

        return conditioned_span_loss(encoder, batch, self.config.classifier_dropout_prob)

    def outputs(self, encoder: Encoder, batch: Any) -> Any:
        """The arrays of the beam search, see `graph_outputs`."""
        from albert_jax.tasks.support.span_heads import search_spans

        return search_spans(encoder, batch, self.config.start_n_top, self.config.end_n_top)

    def top_spans(self, row: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The spans of the beam search."""
        start, start_positions, end, end_positions, _ = row
        return start_positions, end_positions, start[:, None] + end

    def predict(
        self, examples: Sequence[Question], features: Sequence[WindowFeature], outputs: Any
    ) -> list[Prediction]:
        """The same with the null score of a question, which is the lowest of its windows.

        "unanswerable" is the probability that it stands for; above one half the text is "".
        """
        from scipy.special import expit

        scores: list[list[float]] = [[] for _ in examples]
        for feature, score in zip(features, outputs[-1], strict=True):
            scores[feature.question].append(float(score))
        predictions = super().predict(examples, features, outputs)
        for prediction, of_windows in zip(predictions, scores, strict=True):
            null_score = min(of_windows, default=0.0)
            unanswerable = float(expit(null_score))
            prediction |= {"null_score": null_score, "unanswerable": unanswerable}
            if unanswerable > 0.5:
                prediction["text"] = ""
        return predictions

    def score(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> Scores:
        """F1 and exact match in percent at the best threshold, their parts and thresholds."""
        # The best threshold is found here, so the text counts even where the answer would be "".
        texts = {p["id"]: p["best"][0]["text"] if p["best"] else "" for p in predictions}
        nulls = {p["id"]: p["null_score"] for p in predictions}
        return squad_metrics.squad_v2(texts, _gold(examples), nulls)

    def baseline(self, train: Sequence[Question], examples: Sequence[Question]) -> Scores:
        """Scores of never answering."""
        return squad_metrics.squad_v2({x.id: "" for x in examples}, _gold(examples))

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Log-probabilities and positions of the best starts, and of the best ends for each."""
        starts, ends = self.config.start_n_top, self.config.end_n_top
        return {
            "start_log_probs": ("batch", starts),
            "start_positions": ("batch", starts),
            "end_log_probs": ("batch", starts, ends),
            "end_positions": ("batch", starts, ends),
            "unanswerable": ("batch",),
        }

    @property
    def shortest_length(self) -> int:
        """The search takes that many positions."""
        return max(self.config.start_n_top, self.config.end_n_top)

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The same search as `search_spans`."""
        from albert_jax.tasks.support.span_heads import onnx_search

        return onnx_search(graph, hidden, self.config.start_n_top, self.config.end_n_top)


def _gold(examples: Sequence[Question]) -> dict[str, list[str]]:
    return {x.id: [answer.text for answer in x.answers] for x in examples}
