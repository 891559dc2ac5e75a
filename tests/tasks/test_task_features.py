"""Features of each task: what is kept, where labels stand, what padding rows weigh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig
from albert_jax.tasks.multiple_choice import MultipleChoiceConfig
from albert_jax.tasks.sentence_embedding import SentenceEmbedding, SentenceEmbeddingConfig
from albert_jax.tasks.support import rows
from albert_jax.tasks.support.choice_files import ChoiceExample
from albert_jax.tasks.support.columns import TextExample
from albert_jax.tasks.support.rows import Batch, BatchSpec
from albert_jax.tasks.token_classification import (
    TaggedExample,
    TokenClassification,
    TokenClassificationConfig,
)
from tests.tasks.word_vocabulary import Words

TEXT = "a b c d e f g h i j k l m n o p"
WORDS = Words(TEXT)


def featurize(config, examples, length: int, vocabulary=WORDS) -> list:
    return registry.create(config).featurize(vocabulary, examples, length)


def collate(config, found, length: int, batch_size: int) -> Batch:
    return registry.create(config).collate(found, BatchSpec(WORDS, length, batch_size))


def test_truncation_takes_single_tokens_from_the_longer() -> None:
    """Against the rule written as a loop."""
    for a in range(12):
        for b in range(12):
            for most in range(12):
                left, right = a, b
                while left + right > most:
                    if left > right:
                        left -= 1
                    else:
                        right -= 1
                assert rows.truncated_lengths(a, b, most) == (left, right)


def test_rows_and_padding_rows() -> None:
    config = ClassificationConfig(labels=("x", "y"))
    examples = [TextExample("f:1", ("a b", "c"), "y"), TextExample("f:2", ("d",), "x")]
    found = featurize(config, examples, 16)
    batch = collate(config, found, 8, 3)
    assert batch["input_ids"][0].tolist() == [2, *WORDS.encode(["a b"])[0], 3,
                                              *WORDS.encode(["c"])[0], 3, 0, 0]  # fmt: skip
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert batch["segment_ids"][0].tolist() == [1] * 6 + [0] * 2
    assert batch["positions"][0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert batch["labels"].tolist() == [1, 0, 0]
    assert batch["example_weights"].tolist() == [1, 1, 0]
    assert not any(batch[name][2].any() for name in batch)
    with pytest.raises(ConfigError, match="does not fit"):
        collate(config, found, 4, 2)


def test_choices_keep_the_end_of_the_ending_and_the_start_of_the_context() -> None:
    example = ChoiceExample("f:1", "a b c d e f g h", ("i j k l", "m"), 1)
    config = MultipleChoiceConfig(max_choices=3, max_qa_length=3)
    (feature,) = featurize(config, [example], 10)
    first = [WORDS.id_to_token(i) for i in feature.choices[0].ids]
    assert "".join(first) == "[CLS]▁a▁b▁c▁d[SEP]▁j▁k▁l[SEP]"
    assert feature.choices[0].segment_a_length == 6
    batch = collate(config, [feature], 10, 2)
    assert batch["input_ids"].shape == (2, 3, 10)
    assert batch["choice_mask"].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert (batch["labels"].tolist(), batch["example_weights"].tolist()) == ([1, 0], [1, 0])
    with pytest.raises(ConfigError, match="max_qa_length"):
        featurize(MultipleChoiceConfig(max_qa_length=8), [example], 10)


class Letters(Words):
    """Each word is spelled: several tokens a word."""

    def encode(self, texts):
        return [np.array([5 + ord(c) % 26 for c in t if c != " "], np.int32) for t in texts]


def test_tags_stand_on_first_tokens_and_long_sentences_are_split() -> None:
    words = TaggedExample("f:1", ("ab", "c", "def"), ("X", "O", "Y"))
    config = TokenClassificationConfig(labels=("O", "X", "Y"))
    (feature,) = featurize(config, [words], 16, Letters())
    assert feature.labels.tolist() == [-1, 1, -1, 0, 2, -1, -1, -1]
    assert feature.words.tolist() == [-1, 0, -1, 1, 2, -1, -1, -1]
    batch = collate(config, [feature], 10, 2)
    assert batch["label_weights"].sum(axis=1).tolist() == [3, 0]
    parts = featurize(config, [words], 5, Letters())
    assert [p.words.tolist() for p in parts] == [[-1, 0, -1, 1, -1], [-1, 2, -1, -1, -1]]
    with pytest.raises(DataError, match="f:3: tag 'Y' is not one of O, X"):
        featurize(TokenClassificationConfig(labels=("O", "X")), [words], 16, Letters())


def test_pairs_fill_groups() -> None:
    pairs = [TextExample(f"f:{i}", ("a b", "c")) for i in range(3)]
    config = SentenceEmbeddingConfig(pairs_per_row=2)
    batch = collate(config, featurize(config, pairs, 8), 8, 3)
    assert batch["input_ids"].shape == (3, 4, 8)
    assert batch["pair_weights"].tolist() == [[1, 1], [0, 0], [0, 0]]
    with pytest.raises(DataError, match="two texts"):
        featurize(config, [TextExample("f:9", ("a",))], 8)


def test_retrieval_counts_a_partner_that_stands_twice() -> None:
    pairs = SentenceEmbedding(SentenceEmbeddingConfig())
    examples = [TextExample(f"f:{i}", texts) for i, texts in enumerate((("a", "x"), ("b", "x")))]
    vectors = [{"first": [1.0, 0.1 * i], "second": [1.0, 0.0]} for i in range(2)]
    assert pairs.score(examples, vectors) == {"retrieval": 1.0}


def test_texts_without_tokens() -> None:
    examples = [TextExample("f:1", ("A", "b")), TextExample("f:2", ("A", "\u0301"))]
    for config in (ClassificationConfig(labels=("x", "y")), SentenceEmbeddingConfig()):
        with pytest.raises(DataError, match=r"f:2: text .* has no tokens"):
            featurize(config, examples, 9)


def test_lengths_and_encoding_once() -> None:
    assert rows.fitting_length(20, 128) == 32
    assert rows.fitting_length(100, 128) == 128
    assert rows.fitting_length(600, 128) == 128
    seen = []

    class Counting(Words):
        def encode(self, texts):
            seen.extend(texts)
            return super().encode(texts)

    rows.encode_all(Counting(TEXT), ["a", "b", "a"])
    assert seen == ["a", "b"]


def test_first_metric_fits_the_labels(tmp_path: Path) -> None:
    task = TokenClassification(TokenClassificationConfig())
    for text, first in (("a B\nb I\n", "f1"), ("a NN\nb VB\n", "accuracy")):
        (tmp_path / "a.conll").write_text(text)
        examples = task.read_examples(str(tmp_path / "a.conll"), labelled=True)
        ready = task.resolve(examples, examples)
        assert ready.config.metrics[0] == first
        scores = ready.score(examples, [{"tags": list(one.tags or ())} for one in examples])
        assert ("f1" in scores) == (first == "f1") and scores["accuracy"] == 1.0
    (tmp_path / "b.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\n")
    pairs = SentenceEmbedding(SentenceEmbeddingConfig())
    examples = pairs.read_examples(str(tmp_path / "b.tsv"), labelled=True)
    with pytest.raises(DataError, match=r"b\.tsv:2: score 'entailment'"):
        pairs.resolve(examples, examples)
