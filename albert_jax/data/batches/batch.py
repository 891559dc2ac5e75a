"""The arrays of a batch: B rows of S tokens, P masked positions and K sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.row_plan import sequences_per_row
from albert_jax.data.corpus.columns import Columns

Batch = dict[str, np.ndarray]
"""Arrays by name, as `batch_shapes` describes them."""

SOFTMAX_SEED = "softmax_seed"
"""The column with the seed of the tokens that are drawn into the softmax of a step."""
NO_LABEL = -1
"""The label of special tokens and padding, where every token of a row has a label."""


def batch_shapes(
    phase: PhaseConfig, batch_size: int
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array of a batch.

    ``token_type_ids`` distinguish segment A from B. ``segment_ids`` number the sequences of a row
    from 1 and are 0 at padding. Weights are 0 in unused slots and where nothing is predicted.
    ``word_labels`` and ``word_weights``, which only an objective of words has, belong to the masked
    positions, as ``mlm_labels``, or to all tokens. SOFTMAX_SEED, which only an objective with a
    sampled softmax has, is the same in all rows of a step.
    """
    tokens = (batch_size, phase.sequence_length)
    predictions = (batch_size, phase.max_predictions_per_seq)
    per_row = sequences_per_row(phase.sequence_length) if phase.packing else 1
    sequences = (batch_size, per_row)
    integer, real = np.dtype(np.int32), np.dtype(np.float32)
    shapes = {
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
    if phase.objective.word_prediction != "none":
        places = tokens if phase.objective.word_prediction == "all" else predictions
        shapes |= {"word_labels": (places, integer), "word_weights": (places, real)}
    if phase.objective.sampled_softmax_size:
        shapes[SOFTMAX_SEED] = ((batch_size,), integer)
    return shapes


def empty_batch(phase: PhaseConfig, batch_size: int) -> Batch:
    """A batch of filler rows, which have no tokens and no weight."""
    shapes = batch_shapes(phase, batch_size)
    batch = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
    if phase.objective.word_prediction == "all":
        batch["word_labels"][:] = NO_LABEL
    return batch


def set_word_weights(batch: Batch, phase: PhaseConfig) -> None:
    """Gives the labels of words, where an objective asks for them, the weights of their places."""
    if phase.objective.word_prediction == "all":
        batch["word_weights"][:] = batch["word_labels"] != NO_LABEL
    elif phase.objective.word_prediction == "masked":
        batch["word_weights"][:] = batch["mlm_weights"]


def set_softmax_seed(batch: Batch, key: int) -> None:
    """Gives all rows the seed of their step, where an objective asks for it."""
    if SOFTMAX_SEED in batch:
        batch[SOFTMAX_SEED][:] = key >> 33


def empty_columns(phase: PhaseConfig, batch_size: int, columns: Sequence[Columns]) -> Batch:
    """The columns of the corpora of a batch as they are without text."""
    shape, empty = (batch_size, phase.sequence_length), {}
    if any(of_corpus.word_starts for of_corpus in columns):
        empty["word_starts"] = np.zeros(shape, bool)
    if any(of_corpus.num_labels for of_corpus in columns):
        empty["labels"] = np.full(shape, NO_LABEL, np.int32)
    return empty


def unmasked_ids(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tokens as they were before the masks, int32 [B, S]."""
    ids = batch["input_ids"].copy()
    rows, slots = np.nonzero(batch["mlm_weights"])
    ids[rows, batch["mlm_positions"][rows, slots]] = batch["mlm_labels"][rows, slots]
    return ids


def clear_sequences(
    batch: Batch, phase: PhaseConfig, rows: np.ndarray, slots: np.ndarray, *, pad_id: int
) -> None:
    """Turns sequences, given by row and number within the row, into padding without weights."""
    of_tokens = {"input_ids": pad_id, "word_starts": False, "labels": NO_LABEL}
    of_tokens |= dict.fromkeys(("token_type_ids", "segment_ids", "positions"), 0)
    of_masks = ["mlm_positions", "mlm_labels", "mlm_weights"]
    if phase.objective.word_prediction == "masked":
        of_masks.append("word_labels")
    else:
        of_tokens["word_labels"] = NO_LABEL
    for row, slot in zip(rows, slots, strict=True):
        positions = np.flatnonzero(batch["segment_ids"][row] == slot + 1)
        for name in of_tokens.keys() & batch.keys():
            batch[name][row, positions] = of_tokens[name]
        masked = np.isin(batch["mlm_positions"][row], positions)
        for name in of_masks:
            batch[name][row, masked] = 0
        for name in ("cls_positions", "sop_labels", "sop_weights"):
            batch[name][row, slot] = 0
