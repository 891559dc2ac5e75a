"""The public Python names: a model loaded, applied, trained in a loop of one's own, saved.

They are also attributes of the package (`albert_jax.load`). Parameters are nested dicts of
arrays and all functions are pure, so `jax.jit`, `jax.grad`, `jax.vmap` and any optimizer work on
them. In the examples `directory` is a folder made by `albert-jax export` or `save`, and
`prepared` one made by `albert-jax data prepare`.

Letters of shapes: B rows, S places of a row, P masked places, K pairs of a row, V vocabulary,
H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.inference.fill_mask import Candidate
from albert_jax.model_io.model import Model

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

EXACT = ComputeConfig(dtype="float32")
"""Float32 throughout; pass another ComputeConfig (bfloat16, remat) for speed or memory."""


def load(
    path: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: Literal["trained", "averaged"] = "trained",
) -> Model:
    """The model in a run folder, an exported directory or a directory of Transformers.

    Of a run, `step` and `weights` choose the checkpoint, and its parameters or their average.
    Raises CheckpointError.

    >>> model = load(directory)
    >>> model.config.hidden_size, model.params["pooler"]["kernel"].shape
    (16, (16, 16))
    >>> model.vocabulary.decode(model.vocabulary.encode(["the file"])[0])
    'the file'
    """
    from albert_jax.model_io import model as loading

    return loading.load(path, step=step, weights=weights)


def save(model: Model, path: str, *, to: Literal["native", "huggingface"] = "native") -> None:
    """Writes a directory that `load` reads; "huggingface": one that Transformers reads too.

    Raises CheckpointError if the directory exists, StorageError if it cannot be written.

    >>> save(load(directory), directory + "-copy")
    >>> load(directory + "-copy").config == load(directory).config
    True
    """
    from albert_jax.model_io import native

    native.export_run(jax.device_get(model.params), model.run_config, model.vocabulary, path, to=to)


def init(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Random parameters (numpy, float32) with both heads.

    >>> tiny = ModelConfig(vocab_size=100, embedding_size=8, hidden_size=16, num_hidden_layers=2,
    ...                    num_attention_heads=2, intermediate_size=32)
    >>> params = init(tiny)
    >>> sorted(params)
    ['embeddings', 'encoder', 'mlm_head', 'pooler', 'sop_head']
    >>> params["encoder"]["ffn"]["intermediate"]["kernel"].shape
    (1, 16, 32)
    """
    from albert_jax.model.init import init_params

    return init_params(config, seed)


def rows(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    second: Sequence[str] | None = None,
    *,
    length: int,
) -> dict[str, np.ndarray]:
    """Texts, or pairs of them, as rows [CLS] text [SEP] second [SEP] for the encoder.

    input_ids, token_type_ids, segment_ids, positions [B, length] and cls_positions [B, 1]; what
    is too long loses its end (of a pair the longer one does).

    >>> batch = rows(load(directory).vocabulary, ["the file is not found"], ["it is"], length=16)
    >>> batch["input_ids"].shape, batch["token_type_ids"].max(), batch["cls_positions"].tolist()
    ((1, 16), np.int32(1), [[0]])
    """
    from albert_jax.tasks import old_features as features

    first = vocabulary.encode(list(texts))
    if second is None:
        return features.sequence_rows(
            [features.single(vocabulary, a, length) for a in first], length
        )
    pairs = zip(first, vocabulary.encode(list(second)), strict=True)
    return features.sequence_rows(
        [features.pair(vocabulary, a, b, length) for a, b in pairs], length
    )


def encode(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    compute: ComputeConfig = EXACT,
) -> jax.Array:
    """Hidden states [B, S, H] of rows.

    `passes` is how often the layers are applied (default: num_hidden_layers), `dropout` the
    rows' keys (see `dropout_keys`; None: no dropout).

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file", "is found"], length=8)
    >>> encode(model.params, model.config, batch).shape
    (2, 8, 16)
    """
    from albert_jax.model import albert

    return albert.encode(
        params, config, batch, compute=compute, num_layers=num_layers, dropout=dropout
    )


def dropout_keys(seed: int | jax.Array, step: int | jax.Array, count: int) -> jax.Array:
    """One key per row: dropout depends on seed, step and row, not on devices.

    >>> dropout_keys(0, 5, 4).shape
    (4,)
    """
    import jax.numpy as jnp

    from albert_jax.model.dropout import row_keys

    return row_keys(seed, step, jnp.arange(count))


def pooled(params: Params, config: ModelConfig, hidden: jax.Array, batch: Batch) -> jax.Array:
    """What the pooler makes of the [CLS] states, [B, K, H]: the input of classifiers.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file", "is found"], length=8)
    >>> hidden = encode(model.params, model.config, batch)
    >>> pooled(model.params, model.config, hidden, batch).shape
    (2, 1, 16)
    """
    from albert_jax.model import albert

    return albert.pooled(params, config, hidden, batch["cls_positions"])


def mlm_logits(
    params: Params, config: ModelConfig, hidden: jax.Array, places: np.ndarray | jax.Array
) -> jax.Array:
    """Float32 logits over the vocabulary [B, P, V] at the places int32 [B, P] and only there.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], length=8)
    >>> hidden = encode(model.params, model.config, batch)
    >>> mlm_logits(model.params, model.config, hidden, np.array([[1, 2]])).shape
    (1, 2, 64)
    """
    from albert_jax.model import albert

    return albert.mlm_logits(params, config, hidden, jax.numpy.asarray(places))


def sop_logits(params: Params, config: ModelConfig, pooled_states: jax.Array) -> jax.Array:
    """Float32 logits [B, K, 2] of what `pooled` gives: original order, or swapped.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], ["is not found"], length=12)
    >>> hidden = encode(model.params, model.config, batch)
    >>> states = pooled(model.params, model.config, hidden, batch)
    >>> sop_logits(model.params, model.config, states).shape
    (1, 1, 2)
    """
    from albert_jax.model import albert

    return albert.sop_logits(params, config, pooled_states)


def batches(
    prepared: Sequence[str], phase: PhaseConfig, *, seed: int = 0, first_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Masked and paired rows of prepared text, one batch per step of the phase.

    Batch k is a pure function of (text, phase, seed, k): a loop that goes on at `first_step` sees
    the batches it would have seen. Raises DataError for a folder that is not whole.

    >>> phase = PhaseConfig(steps=3, sequence_length=16, batch_size=4)
    >>> [batch["mlm_labels"].shape for batch in batches([prepared], phase, first_step=1)]
    [(4, 2), (4, 2)]
    """
    from albert_jax.data.batches import pipeline
    from albert_jax.data.batches.rows import RowMaker
    from albert_jax.data.corpus.corpus import Corpus

    corpora = [Corpus.open(folder) for folder in prepared]
    maker = RowMaker(corpora, corpora[0].vocabulary(), phase, seed=seed, phase_index=0)
    return pipeline.batches(maker, first_step, phase.steps, np.arange(phase.batch_size))


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

    The parts: mlm_loss, sop_loss (means), mlm_accuracy, sop_accuracy. Use it with
    `jax.value_and_grad(..., has_aux=True)`.

    >>> model = load(directory)
    >>> phase = PhaseConfig(steps=1, sequence_length=16, batch_size=4)
    >>> [batch] = batches([prepared], phase)
    >>> loss, parts = pretraining_loss(model.params, model.config, batch)
    >>> bool(abs(loss - parts["mlm_loss"] - parts["sop_loss"]) < 1e-5)
    True
    """
    import jax.numpy as jnp

    from albert_jax.objectives import pretraining, terms

    found = pretraining.pretraining_loss(config, compute)(
        params, batch, dropout=dropout, num_layers=num_layers
    )
    totals = {name: jnp.sum(batch[name]) for name in terms.weight_names(batch)}
    parts = {}
    for name, term in found.terms.items():
        weight = totals[term.weights]
        parts[f"{name}_loss"] = term.total / term.divisor(weight)
        parts[f"{name}_accuracy"] = found.sums[f"{name}_correct"] / jnp.maximum(weight, 1.0)
    return terms.mean(found.terms, totals), parts


def fill_mask(model: Model, texts: Sequence[str], *, top_k: int = 5) -> list[list[list[Candidate]]]:
    """The likeliest words for every [MASK] of every text: [text][mask][candidate].

    Raises DataError for a text without [MASK] or longer than the model reads.

    >>> [[guesses]] = fill_mask(load(directory), ["the file is [MASK]."], top_k=3)
    >>> len(guesses), guesses[0].probability >= guesses[1].probability
    (3, True)
    """
    from albert_jax.inference import fill_mask as stage

    return stage.fill_mask(model, texts, top_k=top_k)
