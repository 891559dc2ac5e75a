"""Token sequences of examples and the rows they stand in: what all tasks share.

A feature keeps its ids without padding, so that it serves any row length; rows are padded when a
batch is collated. The columns of a batch have the names of pretraining rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]
"""Columns of a batch; the first axis of each is the batch size."""
ENCODER_INPUTS = ("input_ids", "token_type_ids", "segment_ids", "positions")
"""The columns of a batch that the encoder reads."""
INPUTS = (*ENCODER_INPUTS, "cls_positions")
"""The columns that the encoder and the heads read."""
NEGATIVE = -1e30
"""Logit of what can be no answer (squad_utils.py)."""
LENGTHS = (32, 64, 128, 256)
"""Row lengths of prediction batches below the longest, so that few programs are compiled."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence with its special tokens: `ids` int32 [n]."""

    ids: np.ndarray
    segment_a_length: int
    """Tokens with type 0: [CLS] A [SEP]."""
    is_truncated: bool = False
    """True if the texts lost tokens because they are longer than a row."""


@dataclass(frozen=True)
class BatchSpec:
    """Vocabulary, shape and seed of a batch of features."""

    vocabulary: Vocabulary
    length: int
    """Tokens of a row."""
    batch_size: int
    """Rows; those beyond the features are padding of weight 0."""
    seed: int = 0
    """Seed of the random draws, if the task has any."""

    def rng(self) -> np.random.Generator:
        """A generator for this batch."""
        return np.random.Generator(np.random.Philox(key=self.seed))


def sequence(vocabulary: Vocabulary, texts: Sequence[np.ndarray], length: int) -> TokenSequence:
    """[CLS] A [SEP] of one text, or [CLS] A [SEP] B [SEP] of two (classifier_utils.py).

    What is longer than `length` loses tokens at the end of A, or of a pair's longer text (of B if
    both are equally long). An empty B leaves A alone. With a vocabulary that has no [CLS], the
    sequence is the text itself.
    """
    if vocabulary.cls_id < 0:
        text = np.concatenate(texts).astype(np.int32)
        return TokenSequence(text[:length], min(len(text), length), len(text) > length)
    parts = [texts[0][: length - 2]]
    if len(texts) == 2 and len(texts[1]):
        a, b = truncated_lengths(len(texts[0]), len(texts[1]), length - 3)
        parts = [texts[0][:a], texts[1][:b]]
    ids = [np.array([vocabulary.cls_id])]
    for part in parts:
        ids += [part, np.array([vocabulary.sep_id])]
    is_truncated = sum(map(len, parts)) < sum(map(len, texts))
    return TokenSequence(np.concatenate(ids).astype(np.int32), len(parts[0]) + 2, is_truncated)


def truncated_lengths(a: int, b: int, limit: int) -> tuple[int, int]:
    """Lengths after dropping tokens of the longer one (of B if equal) until both fit `limit`."""
    excess = max(0, a + b - limit)
    difference = min(excess, abs(a - b))
    if a > b:
        a -= difference
    else:
        b -= difference
    excess -= difference
    return a - excess // 2, b - (excess - excess // 2)


def sequence_rows(
    sequences: Sequence[TokenSequence], length: int, batch_size: int | None = None
) -> Batch:
    """Columns [batch_size, length] of the encoder's inputs, and cls_positions [batch_size, 1].

    Rows beyond the sequences are padding (all 0). Raises ConfigError for a sequence longer than
    `length`.
    """
    count = len(sequences) if batch_size is None else batch_size
    batch = {name: np.zeros((count, length), np.int32) for name in ENCODER_INPUTS}
    for i, tokens in enumerate(sequences):
        n = len(tokens.ids)
        if n > length:
            raise ConfigError(
                f"a sequence of {n} tokens does not fit rows of {length}: raise the length, or "
                "shorten it"
            )
        batch["input_ids"][i, :n] = tokens.ids
        batch["token_type_ids"][i, tokens.segment_a_length : n] = 1
        batch["segment_ids"][i, :n] = 1
        batch["positions"][i, :n] = np.arange(n)
    batch["cls_positions"] = np.zeros((count, 1), np.int32)
    return batch


def grouped_rows(
    groups: Sequence[Sequence[TokenSequence]], size: int, length: int, batch_size: int
) -> Batch:
    """Like sequence_rows, for rows of `size` sequences each: columns [batch_size, size, length].

    A group with fewer sequences is filled up with empty ones, whose segment_ids are 0.
    """
    empty = TokenSequence(np.zeros(0, np.int32), 0)
    flat: list[TokenSequence] = []
    for group in groups:
        flat += [*group, *[empty] * (size - len(group))]
    batch = sequence_rows(flat, length, batch_size * size)
    return {name: column.reshape(batch_size, size, -1) for name, column in batch.items()}


def label_columns(labels: Sequence[float | None], batch_size: int, dtype: type) -> Batch:
    """Columns labels (0 where one is unknown) and example_weights (float32, 0 in padding rows)."""
    column = np.zeros(batch_size, dtype)
    column[: len(labels)] = [label or 0 for label in labels]
    return {"labels": column, "example_weights": example_weights(len(labels), batch_size)}


def example_weights(count: int, batch_size: int) -> np.ndarray:
    """float32 [batch_size]: 1 for the examples, 0 for padding rows."""
    return (np.arange(batch_size) < count).astype(np.float32)


def fitting_length(longest: int, maximum: int, lengths: Iterable[int] = LENGTHS) -> int:
    """The shortest of a few row lengths that holds `longest` tokens, at most `maximum`."""
    return next((n for n in lengths if longest <= n < maximum), maximum)


def encode_all(vocabulary: Vocabulary, texts: Iterable[str]) -> Callable[[str], np.ndarray]:
    """Encodes each distinct text once; the returned function looks up the ids of a text."""
    distinct = list(dict.fromkeys(texts))
    known = dict(zip(distinct, vocabulary.encode(distinct), strict=True))
    return known.__getitem__


def encode_texts(
    vocabulary: Vocabulary, examples: Sequence[Any], texts: Callable[[Any], Sequence[str]]
) -> Iterator[tuple[Any, list[np.ndarray]]]:
    """Each example with the ids of its texts; DataError for a text without tokens."""
    ids = encode_all(vocabulary, (text for example in examples for text in texts(example)))
    for example in examples:
        for text in texts(example):
            if not len(ids(text)):
                raise DataError(
                    f"{example.where}: text {text[:60]!r} has no tokens; fill it or drop the line"
                )
        yield example, [ids(text) for text in texts(example)]
