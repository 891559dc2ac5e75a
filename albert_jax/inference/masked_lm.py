"""The masked-language head applied to batches of a few shapes; shared by all that fill or score
masks.

Legend: B rows, P masked positions of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import albert
from albert_jax.model.attention import Backend
from albert_jax.tasks.support.prediction import length_buckets
from albert_jax.tasks.support.rows import Batch, TokenSequence, sequence_rows


def logits_function(
    config: ModelConfig, compute: ComputeConfig, backend: Backend, num_layers: int | None = None
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], jax.Array]:
    """The function (params, batch) -> float32 logits [B, P, V] at the batch's mlm_positions.

    It is not compiled; callers jit it, usually together with what reduces the logits.
    """

    def logits(params: Mapping[str, Any], batch: Mapping[str, Any]) -> jax.Array:
        states = albert.encode(
            params, config, batch, compute=compute, num_layers=num_layers, backend=backend,
            positions=batch["mlm_positions"],
        )  # fmt: skip
        return albert.mlm_logits(params, config, states)

    return logits


def masked_batches(
    sequences: Sequence[np.ndarray],
    positions: Sequence[Sequence[int] | np.ndarray],
    max_length: int,
    max_batch_size: int,
) -> Iterator[tuple[list[int], Batch]]:
    """Batches of sequences (special tokens included) with the positions to predict in each.

    Yields the numbers of the sequences in a batch, and the batch.
    """
    for length, members in length_buckets([len(ids) for ids in sequences], max_length):
        size = min(max_batch_size, 1 << (len(members) - 1).bit_length())
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            rows = [sequences[i] for i in chosen]
            yield chosen, masked_batch(rows, [positions[i] for i in chosen], length, size)


def masked_batch(
    sequences: Sequence[np.ndarray],
    positions: Sequence[Sequence[int] | np.ndarray],
    length: int,
    batch_size: int,
) -> Batch:
    """A batch of sequences (special tokens included) with the positions to predict in each.

    The number of positions per row is rounded up to a power of two, and rows beyond the sequences
    are padding, so that few shapes are compiled.
    """
    batch = sequence_rows([TokenSequence(ids, len(ids)) for ids in sequences], length, batch_size)
    count = max(len(row) for row in positions)
    batch["mlm_positions"] = np.zeros((batch_size, 1 << max(0, count - 1).bit_length()), np.int32)
    for i, row in enumerate(positions):
        batch["mlm_positions"][i, : len(row)] = row
    return batch
