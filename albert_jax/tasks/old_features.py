"""Sequences of ids and their rows: what all task families share.

A feature keeps ids without padding, so that the same feature serves any row length; rows are
padded when a batch is made. Names of a batch are those of pretraining rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from albert_jax.errors import ConfigError

Batch = dict[str, np.ndarray]


class Encoder(Protocol):
    """The part of a vocabulary that features need."""

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, without special tokens."""
        ...


@dataclass(frozen=True)
class Tokens:
    """One sequence, special tokens included: ``ids`` int32 [n], the first ``first`` of type 0."""

    ids: np.ndarray
    first: int


def single(encoder: Encoder, a: np.ndarray, length: int) -> Tokens:
    """[CLS] A [SEP], A cut at the end to ``length`` (classifier_utils.py)."""
    ids = _join(encoder, a[: length - 2])
    return Tokens(ids, len(ids))


def pair(encoder: Encoder, a: np.ndarray, b: np.ndarray, length: int) -> Tokens:
    """[CLS] A [SEP] B [SEP] of at most ``length``; the longer of the two is cut at its end.

    Equally long ones lose a token of B first (classifier_utils.py). An empty B leaves A alone.
    """
    if not len(b):
        return single(encoder, a, length)
    kept_a, kept_b = cut_longer(len(a), len(b), length - 3)
    return Tokens(_join(encoder, a[:kept_a], b[:kept_b]), kept_a + 2)


def cut_longer(a: int, b: int, most: int) -> tuple[int, int]:
    """Lengths after taking single tokens off the longer (B if equal) down to a sum of ``most``."""
    excess = max(0, a + b - most)
    level = min(excess, abs(a - b))
    if a > b:
        a -= level
    else:
        b -= level
    excess -= level
    return a - excess // 2, b - (excess - excess // 2)


def sequence_rows(sequences: Sequence[Tokens], length: int, rows: int | None = None) -> Batch:
    """Arrays [rows, length] of the four input names, and cls_positions [rows, 1].

    ``rows`` beyond the sequences are filler (all 0). Raises ConfigError for a sequence longer
    than ``length``.
    """
    count = len(sequences) if rows is None else rows
    batch = {
        name: np.zeros((count, length), np.int32)
        for name in ("input_ids", "token_type_ids", "segment_ids", "positions")
    }
    for i, sequence in enumerate(sequences):
        n = len(sequence.ids)
        if n > length:
            raise ConfigError(f"a sequence of {n} tokens does not fit rows of {length}")
        batch["input_ids"][i, :n] = sequence.ids
        batch["token_type_ids"][i, sequence.first : n] = 1
        batch["segment_ids"][i, :n] = 1
        batch["positions"][i, :n] = np.arange(n)
    batch["cls_positions"] = np.zeros((count, 1), np.int32)
    return batch


def grouped_rows(groups: Sequence[Sequence[Tokens]], size: int, length: int, rows: int) -> Batch:
    """As sequence_rows, for rows that hold ``size`` sequences each: arrays [rows, size, length].

    A group with fewer sequences is filled up with empty ones (segment_ids all 0).
    """
    empty = Tokens(np.zeros(0, np.int32), 0)
    flat: list[Tokens] = []
    for group in groups:
        flat += [*group, *[empty] * (size - len(group))]
    batch = sequence_rows(flat, length, rows * size)
    return {name: array.reshape(rows, size, -1) for name, array in batch.items()}


def weights(count: int, rows: int) -> np.ndarray:
    """float32 [rows]: 1 for the examples, 0 for filler."""
    return (np.arange(rows) < count).astype(np.float32)


def fitting_length(longest: int, most: int, lengths: Sequence[int] = (32, 64, 128, 256)) -> int:
    """The shortest of a few row lengths that fits, so that few shapes are ever compiled."""
    return next((n for n in lengths if longest <= n < most), most)


def encode_all(encoder: Encoder, texts: Iterable[str]) -> Callable[[str], np.ndarray]:
    """Encodes each distinct text once; the function returned looks its ids up."""
    distinct = list(dict.fromkeys(texts))
    known = dict(zip(distinct, encoder.encode(distinct), strict=True))
    return known.__getitem__


def _join(encoder: Encoder, *parts: np.ndarray) -> np.ndarray:
    pieces: list[np.ndarray] = [np.array([encoder.cls_id])]
    for part in parts:
        pieces += [part, np.array([encoder.sep_id])]
    return np.concatenate(pieces).astype(np.int32)
