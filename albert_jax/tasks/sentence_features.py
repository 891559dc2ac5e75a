"""Features of classification, regression, multiple choice, tagging and sentence embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.examples import Choices, Sentences, Tagged
from albert_jax.tasks.old_features import (
    Batch,
    Encoder,
    Tokens,
    encode_all,
    grouped_rows,
    pair,
    sequence_rows,
    single,
    weights,
)
from albert_jax.tasks.tables import label_index, score

IGNORED_TAG = -1
"""Label of a place that has none: specials and all pieces of a word but its first."""


@dataclass(frozen=True)
class SentenceFeature:
    """A text or pair with its class number or score (None: unknown)."""

    tokens: Tokens
    label: float | None


@dataclass(frozen=True)
class ChoiceFeature:
    """The sequences of one question's choices and the number of the right one."""

    choices: tuple[Tokens, ...]
    label: int | None


@dataclass(frozen=True)
class TagFeature:
    """A tagged sentence: ``words`` int32 [n] is each place's word if it starts one, else -1."""

    tokens: Tokens
    words: np.ndarray
    tags: np.ndarray


@dataclass(frozen=True)
class PairFeature:
    """Two texts that mean the same, each a sequence of its own."""

    first: Tokens
    second: Tokens


def sentence_features(
    encoder: Encoder, examples: Sequence[Sentences], length: int, labels: Sequence[str] | None
) -> list[SentenceFeature]:
    """Features of texts or pairs; ``labels`` None reads labels as scores (regression)."""
    ids = encode_all(encoder, (text for example in examples for text in example.texts))
    found = []
    for example in examples:
        encoded = [_some(ids(text), example.where, text) for text in example.texts]
        tokens = (
            single(encoder, encoded[0], length)
            if len(encoded) == 1
            else pair(encoder, encoded[0], encoded[1], length)
        )
        label: float | None = None
        if example.label is not None:
            label = (
                score(example.where, example.label)
                if labels is None
                else label_index(example.where, example.label, labels)
            )
        found.append(SentenceFeature(tokens, label))
    return found


def _some(ids: np.ndarray, where: str, text: str) -> np.ndarray:
    """The ids of a text; DataError if there are none (nothing of it survives the cleaning)."""
    if not len(ids):
        raise DataError(f"{where}: text {text[:60]!r} has no pieces; fill it or drop the line")
    return ids


def sentence_batch(
    features: Sequence[SentenceFeature], length: int, rows: int, *, scores: bool = False
) -> Batch:
    """Rows with ``labels`` [rows] (int32; float32 if ``scores``) and ``example_weights``."""
    batch = sequence_rows([feature.tokens for feature in features], length, rows)
    batch["labels"] = np.zeros(rows, np.float32 if scores else np.int32)
    batch["labels"][: len(features)] = [feature.label or 0 for feature in features]
    batch["example_weights"] = weights(len(features), rows)
    return batch


def choice_features(
    encoder: Encoder, examples: Sequence[Choices], length: int, qa_length: int = 128
) -> list[ChoiceFeature]:
    """Features [CLS] context [SEP] ending [SEP], one sequence per choice (race_utils.py).

    An ending keeps its last ``qa_length`` tokens, the context is cut at its end to what is left.
    """
    if length < qa_length + 3:
        raise ConfigError(
            f"task.qa_length {qa_length} leaves no place in rows of {length}: lower it"
        )
    texts = (t for example in examples for t in (example.context, *example.endings))
    ids = encode_all(encoder, texts)
    found = []
    for example in examples:
        context = _some(ids(example.context), example.where, example.context)
        choices = []
        for ending in example.endings:
            tail = _some(ids(ending), example.where, ending)[-qa_length:]
            kept = context[: max(0, length - 3 - len(tail))]
            # Both parts fit, so pair() cuts nothing more.
            choices.append(pair(encoder, kept, tail, length))
        found.append(ChoiceFeature(tuple(choices), example.label))
    return found


def choice_batch(features: Sequence[ChoiceFeature], choices: int, length: int, rows: int) -> Batch:
    """Grouped rows [rows, choices, length] with ``labels``, ``choice_mask`` and weights.

    ``choice_mask`` float32 [rows, choices] is 0 at places without a choice.
    """
    batch = grouped_rows([feature.choices for feature in features], choices, length, rows)
    batch["labels"] = np.zeros(rows, np.int32)
    batch["labels"][: len(features)] = [feature.label or 0 for feature in features]
    batch["choice_mask"] = (batch["segment_ids"][:, :, 0] > 0).astype(np.float32)
    batch["example_weights"] = weights(len(features), rows)
    return batch


def tag_features(
    encoder: Encoder, examples: Sequence[Tagged], length: int, names: Sequence[str]
) -> list[TagFeature]:
    """Features of tagged words: the first piece of a word bears its tag.

    A sentence longer than ``length`` becomes several features, cut between words, so no tag is
    lost. DataError for a word without any piece (nothing of it survives the cleaning).
    """
    ids = encode_all(encoder, (word for example in examples for word in example.words))
    known = {name: i for i, name in enumerate(names)}
    found = []
    for example in examples:
        tags = example.tags or ()
        for number, tag in enumerate(tags):
            if tag not in known:
                raise DataError(
                    f"{example.where_word(number)}: tag {tag!r} is not one of {', '.join(names)}; "
                    "mend the file or the tag set"
                )
        pieces: list[np.ndarray] = []
        for number, word in enumerate(example.words):
            encoded = ids(word)[: length - 2]
            if not len(encoded):
                raise DataError(
                    f"{example.where_word(number)}: word {word!r} has no pieces; drop or mend it"
                )
            pieces.append(encoded)
        begin = 0
        while begin < len(pieces):
            end, used = begin, 2
            while end < len(pieces) and used + len(pieces[end]) <= length:
                used += len(pieces[end])
                end += 1
            found.append(_tag_feature(encoder, pieces, tags, known, begin, end))
            begin = end
    return found


def _tag_feature(
    encoder: Encoder,
    pieces: Sequence[np.ndarray],
    tags: Sequence[str],
    known: dict[str, int],
    begin: int,
    end: int,
) -> TagFeature:
    ids, words, labels = [encoder.cls_id], [-1], [IGNORED_TAG]
    for word in range(begin, end):
        ids += pieces[word].tolist()
        rest = len(pieces[word]) - 1
        words += [word, *[-1] * rest]
        labels += [known[tags[word]] if tags else IGNORED_TAG, *[IGNORED_TAG] * rest]
    ids.append(encoder.sep_id)
    return TagFeature(
        Tokens(np.array(ids, np.int32), len(ids)),
        np.array([*words, -1], np.int32),
        np.array([*labels, IGNORED_TAG], np.int32),
    )


def tag_batch(features: Sequence[TagFeature], length: int, rows: int) -> Batch:
    """Rows with ``labels`` int32 [rows, length] and ``label_weights`` (1 where a tag stands)."""
    batch = sequence_rows([feature.tokens for feature in features], length, rows)
    labels = np.full((rows, length), IGNORED_TAG, np.int32)
    for i, feature in enumerate(features):
        labels[i, : len(feature.tags)] = feature.tags
    batch["label_weights"] = (labels != IGNORED_TAG).astype(np.float32)
    batch["labels"] = np.maximum(labels, 0)
    return batch


def pair_features(
    encoder: Encoder, examples: Sequence[Sentences], length: int
) -> list[PairFeature]:
    """Features of pairs for sentence embedding: each text is a sequence of its own."""
    ids = encode_all(encoder, (text for example in examples for text in example.texts))
    found = []
    for example in examples:
        if len(example.texts) != 2:
            raise DataError(
                f"{example.where}: sentence embedding needs two texts; name both columns"
            )
        first, second = (
            single(encoder, _some(ids(text), example.where, text), length) for text in example.texts
        )
        found.append(PairFeature(first, second))
    return found


def pair_batch(features: Sequence[PairFeature], group: int, length: int, rows: int) -> Batch:
    """Rows of ``group`` pairs each: sequences [rows, 2 * group, length], pair p at 2p and 2p + 1.

    ``pair_weights`` float32 [rows, group] is 0 where a group lacks a pair; a lone pair has
    nothing to be told from and weighs 0 too.
    """
    groups = [features[i : i + group] for i in range(0, len(features), group)]
    sequences = [[t for p in members for t in (p.first, p.second)] for members in groups]
    batch = grouped_rows(sequences, 2 * group, length, rows)
    batch["pair_weights"] = np.zeros((rows, group), np.float32)
    for i, members in enumerate(groups):
        batch["pair_weights"][i, : len(members)] = float(len(members) > 1)
    return batch
