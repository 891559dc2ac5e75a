"""The arrays of a batch: B rows of S tokens, P masked positions and K sequences."""

from __future__ import annotations

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.row_plan import sequences_per_row

Batch = dict[str, np.ndarray]
"""Arrays by name, as `batch_shapes` describes them."""


def batch_shapes(
    phase: PhaseConfig, batch_size: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array of a batch.

    ``token_type_ids`` distinguish segment A from B. ``segment_ids`` number the sequences of a row
    from 1 and are 0 at padding. Weights are 0 in unused slots and where nothing is predicted.
    """
    tokens = (batch_size, phase.sequence_length)
    predictions = (batch_size, phase.max_predictions_per_seq)
    per_row = sequences_per_row(phase.sequence_length) if phase.packing else 1
    sequences = (batch_size, per_row)
    integer, real = np.dtype(np.int32), np.dtype(np.float32)
    return {
        "input_ids": (tokens, integer),
        "token_type_ids": (tokens, integer),
        "segment_ids": (tokens, integer),
        "positions": (tokens, integer),
        "mlm_positions": (predictions, integer),
        "mlm_labels": (predictions, integer),
        "mlm_weights": (predictions, real),
        "cls_positions": (sequences, integer),
        "sop_labels": (sequences, integer),
        "sop_weights": (sequences, real),
    }


def empty_batch(phase: PhaseConfig, batch_size: int) -> Batch:
    """A batch of filler rows, which have no tokens and no weight."""
    shapes = batch_shapes(phase, batch_size)
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
