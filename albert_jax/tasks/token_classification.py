"""Token classification: one tag per word, for example named entities or parts of speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.config_fields import bounded
from albert_jax.data.sources import hub_datasets
from albert_jax.data.sources.tables import read_text
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.registry import register
from albert_jax.tasks.support import columns, metrics, rows, typed_line
from albert_jax.tasks.support.page_form import PageForm
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import Axes, Prediction, Scores, Task

if TYPE_CHECKING:
    from albert_jax.tasks.support.encoder import Encoder

NO_LABEL = -1
"""Label of special tokens, and of all tokens of a word but its first."""
DOCUMENT_MARK = "-DOCSTART-"
OTHER_FORMATS = (".csv", ".json", ".jsonl")
"""Extensions of files that are not CoNLL, although they could be read as if they were."""


@dataclass(frozen=True, kw_only=True)
class TokenClassificationConfig(TaskConfig):
    """Settings of token classification."""

    name: str = "token-classification"
    """The task."""
    labels: tuple[str, ...] = ()
    """All tags; empty: those of the training examples."""
    word_column: int = 0
    """Column of the words in a CoNLL file, from 0 (negative: from the end)."""
    tag_column: int = -1
    """Column of the tags."""
    classifier_dropout_prob: float = bounded(0.1, 0.0, 0.999)
    """Dropout in front of the head while training."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError for a tag that is named twice."""
        super().validate(where)
        columns.check_labels(self.labels, f"{where}.labels")


@dataclass(frozen=True)
class TaggedExample:
    """Words of a sentence and, if known, one tag for each."""

    where: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    def where_word(self, number: int) -> str:
        """The place of a word: in a file each stands on a line of its own."""
        path, _, line = self.where.rpartition(":")
        return f"{path}:{int(line) + number}" if line.isdecimal() else self.where


@dataclass(frozen=True)
class TaggedFeature:
    """A sentence, or a part of a long one.

    `words` int32 [n] is the number of the word that a token begins, else -1; `labels` int32 [n]
    is its tag, else NO_LABEL.
    """

    tokens: rows.TokenSequence
    words: np.ndarray
    labels: np.ndarray


@register
class TokenClassification(Task[TokenClassificationConfig, TaggedExample, TaggedFeature]):
    """Give each word of a sentence a tag."""

    name = "token-classification"
    config_class = TokenClassificationConfig
    metrics = ("f1", "accuracy")
    loss_name = "tag"
    weight_column = "label_weights"
    page = PageForm(
        title="Tags of words",
        fields=("sentence (words with spaces between them)",),
        examples={
            "en": (("Anna Berg moved from Hamburg to Lisbon in May .",),),
            "zh": (("李明 去年 从 北京 搬到 上海 。",),),
        },
    )
    transformers = TransformersClass(
        name="AlbertForTokenClassification",
        head=("classifier", "classifier"),
        pipeline="token-classification",
    )

    def read_examples(self, path: str, *, labelled: bool) -> list[TaggedExample]:
        """Sentences of a CoNLL file."""
        if hub_datasets.is_hub_dataset(path):
            raise ConfigError(f"{path!r}: {self.name} reads CoNLL files; export the dataset")
        return read_conll(path, self.config.word_column, self.config.tag_column, tagged=labelled)

    def parse_line(self, line: str, where: str) -> TaggedExample:
        """Words with spaces between them."""
        (text,) = typed_line.parse_parts(line, where, self.name, 1, 1)
        return TaggedExample(where, tuple(text.split()))

    def resolve(self, train: Sequence[TaggedExample], dev: Sequence[TaggedExample]) -> Self:
        """Adds the tags of the training examples; F1 only counts where they mark spans."""
        seen = {tag for example in train for tag in example.tags or ()}
        labels = self.config.labels or tuple(sorted(seen, key=lambda tag: (tag != "O", tag)))
        if len(labels) < 2:
            raise DataError(
                f"{train[0].where}: {len(labels)} tag in all training examples; at least two are "
                "needed"
            )
        known = self.metrics if metrics.are_span_tags(labels) else ("accuracy",)
        return self.with_metrics(known).with_config(labels=labels)

    def texts(self, example: TaggedExample) -> Sequence[str]:
        """The sentence."""
        return (" ".join(example.words),)

    def featurize(
        self, vocabulary: Vocabulary, examples: Sequence[TaggedExample], length: int
    ) -> list[TaggedFeature]:
        """[CLS] words [SEP], where the first token of a word has its tag.

        A sentence that is too long becomes several features, split between words, so that no tag
        is lost. DataError for a word without any token, or an unknown tag.
        """
        ids = rows.encode_all(vocabulary, (word for x in examples for word in x.words))
        numbers = {label: i for i, label in enumerate(self.config.labels)}
        features = []
        for example in examples:
            words = []
            for number, word in enumerate(example.words):
                tag = example.tags[number] if example.tags else None
                if tag is not None and tag not in numbers:
                    raise DataError(
                        f"{example.where_word(number)}: tag {tag!r} is not one of "
                        f"{', '.join(self.config.labels)}; fix the file or the tag set"
                    )
                if not len(ids(word)):
                    raise DataError(
                        f"{example.where_word(number)}: word {word!r} has no tokens; drop or fix it"
                    )
                words.append(ids(word)[: length - 2])
            labels = [numbers[tag] for tag in example.tags or ()]
            features += _parts(vocabulary, words, labels, length)
        return features

    def collate(self, features: Sequence[TaggedFeature], spec: BatchSpec) -> rows.Batch:
        """Rows with labels int32 [batch_size, length] and label_weights (1 where there is one)."""
        tokens = [feature.tokens for feature in features]
        batch = rows.sequence_rows(tokens, spec.length, spec.batch_size)
        labels = np.full((spec.batch_size, spec.length), NO_LABEL, np.int32)
        for i, feature in enumerate(features):
            labels[i, : len(feature.labels)] = feature.labels
        batch["label_weights"] = (labels != NO_LABEL).astype(np.float32)
        batch["labels"] = np.maximum(labels, 0)
        return batch

    def logits(self, encoder: Encoder, batch: Any) -> Any:
        """Logits [B, S, C] of every token."""
        rate = self.config.classifier_dropout_prob
        return encoder.classifier(encoder.hidden_states(batch), rate)

    def predict(
        self, examples: Sequence[TaggedExample], features: Sequence[TaggedFeature], outputs: Any
    ) -> list[Prediction]:
        """One tag per word."""
        best = np.asarray(outputs).argmax(-1)
        tags: list[dict[int, str]] = []
        for i, feature in enumerate(features):
            positions = np.flatnonzero(feature.words >= 0)
            if feature.words[positions[0]] == 0:  # the first part of a sentence
                tags.append({})
            for position in positions:
                tags[-1][int(feature.words[position])] = self.config.labels[int(best[i, position])]
        return [
            {"words": list(x.words), "tags": [tag_of_word[i] for i in range(len(x.words))]}
            for x, tag_of_word in zip(examples, tags, strict=True)
        ]

    def answer(self, prediction: Prediction) -> str:
        """All tags of the sentence."""
        return " ".join(sorted(set(prediction["tags"])))

    def score(self, examples: Sequence[TaggedExample], predictions: Sequence[Prediction]) -> Scores:
        """Accuracy of the tags and, where they mark spans, F1, precision and recall of these."""
        found = metrics.span_f1([p["tags"] for p in predictions], [x.tags or () for x in examples])
        spans = metrics.are_span_tags(self.config.labels)
        return found if spans else {"accuracy": found["accuracy"]}

    def graph_outputs(self, model: ModelConfig) -> dict[str, Axes]:
        """Logits of every token."""
        return {"logits": ("batch", "length", len(self.config.labels))}

    def onnx_outputs(self, graph: Any, hidden: str) -> list[str]:
        """The dense layer on every token."""
        return [graph.dense(hidden, "head/classifier")]


def _parts(
    vocabulary: Vocabulary, words: Sequence[np.ndarray], labels: Sequence[int], length: int
) -> list[TaggedFeature]:
    """The features of a sentence: as many words in each as fit `length` with [CLS] and [SEP]."""
    features, begin = [], 0
    while begin < len(words):
        ids, numbers, marks = [vocabulary.cls_id], [-1], [NO_LABEL]
        end = begin
        while end < len(words) and len(ids) + len(words[end]) < length:
            rest = [-1] * (len(words[end]) - 1)
            ids += words[end].tolist()
            numbers += [end, *rest]
            marks += [labels[end] if labels else NO_LABEL, *[NO_LABEL] * len(rest)]
            end += 1
        features.append(
            TaggedFeature(
                rows.TokenSequence(np.array([*ids, vocabulary.sep_id], np.int32), len(ids) + 1),
                np.array([*numbers, -1], np.int32),
                np.array([*marks, NO_LABEL], np.int32),
            )
        )
        begin = end
    return features


def read_conll(
    path: str | Path, word_column: int = 0, tag_column: int = -1, *, tagged: bool = True
) -> list[TaggedExample]:
    """Sentences of a CoNLL file: one word per line, blank lines between sentences.

    Columns are separated by tabs if the line has one, else by white space. Lines that open a
    document ("-DOCSTART-") and comments are skipped; a line before a sentence that begins with
    "# " is a comment unless it has as many columns as the file. Without `tagged` only words are
    read. Raises DataError, which names the line.
    """
    if Path(path).suffix.lower() in OTHER_FORMATS:
        raise DataError(
            f"{path}: token-classification reads CoNLL files: give one word and its tag per line, "
            "with a tab or spaces between them"
        )
    lines = [line.rstrip("\r") for line in read_text(path).split("\n")]
    width = next((len(_columns(line)) for line in lines if _is_word(line)), 0)
    examples: list[TaggedExample] = []
    words: list[str] = []
    tags: list[str] = []
    start = 1
    for number, line in enumerate([*lines, ""], 1):
        if not line.strip() or line.startswith(DOCUMENT_MARK):
            if words:
                known = tuple(tags) if tagged else None
                examples.append(TaggedExample(f"{path}:{start}", tuple(words), known))
            words, tags = [], []
            continue
        fields = _columns(line)
        if line.startswith("# ") and not words and len(fields) != width:
            continue
        if len(fields) != width or (tagged and width < 2):
            raise DataError(
                f"{path}:{number}: {len(fields)} columns where {max(width, 1 + tagged)} are "
                "expected; one word and its tags per line"
            )
        for column in (word_column, tag_column) if tagged else (word_column,):
            if not -width <= column < width:
                raise DataError(
                    f"{path}:{number}: no column {column} among {width}; correct task.word_column "
                    "or task.tag_column"
                )
        word, tag = fields[word_column], fields[tag_column] if tagged else ""
        if not word.strip() or (tagged and not tag.strip()):
            raise DataError(f"{path}:{number}: empty word or tag; fix the line")
        start = start if words else number
        words.append(word)
        tags.append(tag)
    if not examples:
        raise DataError(f"{path}: no sentences; give a file with at least one")
    return examples


def _is_word(line: str) -> bool:
    return bool(line.strip()) and not line.startswith((DOCUMENT_MARK, "# "))


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()
