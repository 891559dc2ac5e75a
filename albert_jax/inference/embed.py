"""Texts as vectors: those of a sentence-embedding run, else the mean of the last states."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from albert_jax.config import Config
from albert_jax.errors import DataError
from albert_jax.model import unroll
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.prediction import length_buckets
from albert_jax.tasks.support.rows import TokenSequence, sequence, sequence_rows
from albert_jax.tasks.task import AnyTask

BATCH_SIZE = 32


def token_rows(model: Model, texts: Sequence[str], where: Sequence[str]) -> list[TokenSequence]:
    """[CLS] text [SEP] of each text, truncated to the rows of the model.

    `where` names the place of each text for error messages. Raises DataError for an empty text.
    """
    length = _row_length(model)
    found = []
    for place, text, ids in zip(where, texts, model.vocabulary.encode(list(texts)), strict=True):
        if not len(ids):
            raise DataError(f"{place}: text {text[:60]!r} has no tokens: fill it or drop it")
        found.append(sequence(model.vocabulary, [ids], length))
    return found


def truncated_texts(rows: Sequence[TokenSequence]) -> str:
    """The number of texts that are longer than a row and lose tokens, in words; "" if none is."""
    count = sum(row.is_truncated for row in rows)
    return f"{count} of {len(rows)} texts are longer than a row and are truncated" if count else ""


def embed_rows(
    model: Model, rows: Sequence[TokenSequence], num_layers: int | None = None
) -> np.ndarray:
    """Vectors float32 [rows, H] of the rows of `token_rows`."""
    vectors = np.zeros((len(rows), model.config.hidden_size), np.float32)
    program = _program(model.run_config, num_layers)
    for length, numbers in length_buckets([len(row.ids) for row in rows], _row_length(model)):
        size = min(BATCH_SIZE, 1 << (len(numbers) - 1).bit_length())
        for begin in range(0, len(numbers), size):
            part = numbers[begin : begin + size]
            batch = sequence_rows([rows[i] for i in part], length, size)
            vectors[part] = np.asarray(program(model.params, batch))[: len(part)]
    return vectors


def _row_length(model: Model) -> int:
    """Tokens of the longest row: as in training if the task makes vectors, else all positions."""
    if _task(model.run_config) is not None:
        return model.run_config.phases[-1].sequence_length
    return model.config.max_position_embeddings


def _task(run_config: Config) -> AnyTask | None:
    """The task of the run, if it is one that makes vectors of texts."""
    task = None if run_config.task is None else registry.create(run_config.task)
    return task if task is not None and task.embeds else None


@functools.lru_cache(maxsize=8)
def _program(run_config: Config, num_layers: int | None) -> Any:
    """The compiled (params, batch) -> vectors float32 [B, H], one per structure."""
    task = _task(run_config)
    base = Encoder(run_config.model, unroll.inference_compute(run_config.model, num_layers))

    def vectors(params: Any, batch: Any) -> Any:
        encoder = base.bind(params, None, num_layers)
        if task is not None:
            return task.logits(encoder, batch)
        return encoder.pool(encoder.hidden_states(batch), batch, "mean")

    return jax.jit(vectors)
