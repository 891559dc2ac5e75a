"""The public Python names: a model loaded, applied, trained in a loop of one's own, saved.

They are also attributes of the package (`albert_jax.load`). Parameters are nested dicts of
arrays and all functions are pure, so `jax.jit`, `jax.grad`, `jax.vmap` and any optimizer work on
them. In the examples `directory` is a folder made by `albert-jax export` or `save`, and
`prepared` one made by `albert-jax data prepare`.

Legend of shapes: B rows, S tokens of a row, P masked positions, K pairs of a row, V vocabulary,
H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.inference.fill_mask import fill_mask
from albert_jax.model.albert import EXACT, encode, mlm_logits, pooled, sop_logits
from albert_jax.model.dropout import row_keys
from albert_jax.model.init import init_params as init
from albert_jax.model_io.model import Model, load

__all__ = [
    "Config",
    "Model",
    "ModelConfig",
    "PhaseConfig",
    "batches",
    "dropout_keys",
    "encode",
    "fill_mask",
    "init",
    "load",
    "mlm_logits",
    "pooled",
    "pretraining_loss",
    "rows",
    "save",
    "sop_logits",
]

Params = Mapping[str, Any]
Batch = Mapping[str, Any]


def save(model: Model, path: str, *, to: Literal["native", "huggingface"] = "native") -> None:
    """Writes a directory that `load` reads; "huggingface" is one that Transformers reads too.

    Raises CheckpointError if the directory exists, and StorageError if it cannot be written.

    >>> save(load(directory), directory + "-copy")
    >>> load(directory + "-copy").config == load(directory).config
    True
    """
    from albert_jax.export.export import export

    export(model, path, to=to)


def rows(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    second: Sequence[str] | None = None,
    *,
    length: int,
) -> dict[str, np.ndarray]:
    """Texts, or pairs of them, as rows [CLS] text [SEP] second [SEP] for the encoder.

    The columns are input_ids, token_type_ids, segment_ids, positions [B, length] and
    cls_positions [B, 1]. A text that is too long is truncated at its end; of a pair the longer
    text is.

    >>> batch = rows(load(directory).vocabulary, ["the file is not found"], ["it is"], length=16)
    >>> batch["input_ids"].shape, batch["token_type_ids"].max(), batch["cls_positions"].tolist()
    ((1, 16), np.int32(1), [[0]])
    """
    from albert_jax.tasks.support import features

    columns = [vocabulary.encode(list(column)) for column in (texts, second) if column is not None]
    sequences = [
        features.sequence(vocabulary, parts, length) for parts in zip(*columns, strict=True)
    ]
    return features.sequence_rows(sequences, length)


def dropout_keys(seed: int | jax.Array, step: int | jax.Array, count: int) -> jax.Array:
    """One key per row: dropout depends on seed, step and row, not on devices.

    >>> dropout_keys(0, 5, 4).shape
    (4,)
    """
    return row_keys(seed, step, jnp.arange(count))


def batches(
    prepared: Sequence[str], phase: PhaseConfig, *, seed: int = 0, first_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Masked and paired rows of prepared text, one batch per step of the phase.

    Batch k is a pure function of (text, phase, seed, k), so a loop that continues at `first_step`
    sees the batches it would have seen. Raises DataError for an incomplete folder.

    >>> phase = PhaseConfig(steps=3, sequence_length=16, batch_size=4)
    >>> [batch["mlm_labels"].shape for batch in batches([prepared], phase, first_step=1)]
    [(4, 2), (4, 2)]
    """
    from albert_jax.data.batches import pipeline
    from albert_jax.data.batches.builder import BatchBuilder
    from albert_jax.data.corpus.corpus import Corpus

    corpora = [Corpus.open(folder) for folder in prepared]
    builder = BatchBuilder(corpora, corpora[0].vocabulary(), phase, seed=seed, phase_index=0)
    return pipeline.batches(builder, first_step, phase.steps, np.arange(phase.batch_size))


def pretraining_loss(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    compute: ComputeConfig = EXACT,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of masked words plus sentence order over a batch, and its parts.

    The parts are mlm_loss, sop_loss (means), mlm_accuracy and sop_accuracy. Use it with
    `jax.value_and_grad(..., has_aux=True)`.

    >>> model = load(directory)
    >>> phase = PhaseConfig(steps=1, sequence_length=16, batch_size=4)
    >>> [batch] = batches([prepared], phase)
    >>> loss, parts = pretraining_loss(model.params, model.config, batch)
    >>> bool(abs(loss - parts["mlm_loss"] - parts["sop_loss"]) < 1e-5)
    True
    """
    from albert_jax.objectives import loss_terms, pretraining

    result = pretraining.pretraining_loss(config, compute)(
        params, batch, dropout=dropout, num_layers=num_layers
    )
    totals = {name: jnp.sum(batch[name]) for name in loss_terms.weight_names(batch)}
    parts = {}
    for name, term in result.terms.items():
        weight = totals[term.weights]
        parts[f"{name}_loss"] = term.total / term.divisor(weight)
        parts[f"{name}_accuracy"] = result.sums[f"{name}_correct"] / jnp.maximum(weight, 1.0)
    return loss_terms.mean(result.terms, totals), parts
