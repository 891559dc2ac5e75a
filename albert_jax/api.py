"""The public Python names: a model loaded, applied, trained in a loop of one's own, saved.

They are also attributes of the package (`albert_jax.load`). `predict`, `embed`, `tokenize`,
`score`, `fill_mask` and `finetune` do what the commands of these names do, with the same arguments
and errors; a command prints what the function returns.

The other functions are for a loop of one's own. Parameters are nested dicts of arrays and these
functions are pure, so `jax.jit`, `jax.grad`, `jax.vmap` and any optimizer work on them.

In the examples `directory` is a folder made by `albert-jax export` or `save`, `prepared` one made
by `albert-jax data prepare`, and `classifier` a fine-tuned model.

Legend of shapes: B rows, S tokens of a row, P masked positions, K sequences of a row, V vocabulary,
H hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies.masked_text import check_texts
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import (
    AlbertError,
    CheckpointError,
    ConfigError,
    DataError,
    NumericsError,
    PeerError,
    Stopped,
    StorageError,
)
from albert_jax.inference.fill_mask import fill_mask
from albert_jax.model.albert import FLOAT32, encode, mlm_logits, pooler_output, sop_logits
from albert_jax.model.dropout import row_keys
from albert_jax.model.init import init_params as init
from albert_jax.model_io.model import Model, load

__all__ = [
    "AlbertError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "Model",
    "ModelConfig",
    "NumericsError",
    "PeerError",
    "PhaseConfig",
    "Stopped",
    "StorageError",
    "batches",
    "dropout_keys",
    "embed",
    "encode",
    "fill_mask",
    "finetune",
    "init",
    "load",
    "mlm_logits",
    "pooler_output",
    "predict",
    "pretraining_loss",
    "rows",
    "save",
    "score",
    "sop_logits",
    "tokenize",
]

Params = Mapping[str, Any]
Batch = Mapping[str, Any]


def save(model: Model, path: str, *, to: Literal["native", "huggingface"] = "native") -> None:
    """Writes a directory that `load` reads; "huggingface" is one that Transformers reads too.

    The head of a fine-tuned model is written for Transformers only: `load` reads it from its run.
    Raises CheckpointError if the directory exists, and StorageError if it cannot be written.

    >>> save(load(directory), directory + "-copy")
    >>> load(directory + "-copy").config == load(directory).config
    True
    """
    from albert_jax.export.export import export

    export(model, path, to=to)


def predict(
    model: Model,
    texts: Sequence[str | Sequence[str]],
    *,
    num_layers: int | None = None,
    top_k: int | None = None,
    exit_confidence: float | None = None,
    denoising_steps: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Predictions of a fine-tuned model for each text, or for several that belong together.

    Texts that belong together (two that are compared; a question and its context; a context and
    its choices; the turns of a dialogue) are a list or tuple, or one text with tabs between them.
    A prediction is a dict with the "input" (the "id" of a question with its context) and what the
    task answers, for example "label", "probability" and the "probabilities" of all labels, the most
    probable first. `top_k` limits the labels, or lists that many answers to a question.
    `exit_confidence` stops a classifier after the layer at which its most probable label reaches
    this probability. The other options are for generation: its denoising steps, a temperature (0
    takes the most probable tokens) and a seed.
    Raises CheckpointError for a model that was not fine-tuned, and DataError for a text that the
    task cannot use, such as a single one where two are compared.

    >>> [found] = predict(classifier, ["the file is found"])
    >>> sorted(found), list(found["probabilities"])[0] == found["label"]
    (['input', 'label', 'probabilities', 'probability'], True)
    """
    from albert_jax.inference.predictor import Predictor

    check_texts(texts, several=True)
    predictor = Predictor(
        model,
        num_layers=num_layers,
        top_k=top_k,
        exit_confidence=exit_confidence,
        denoising_steps=denoising_steps,
        temperature=temperature,
        seed=seed,
    )
    lines = [
        text if isinstance(text, str) else "\t".join(part.replace("\t", " ") for part in text)
        for text in texts
    ]
    examples = [predictor.task.parse_line(line, f"texts[{i}]") for i, line in enumerate(lines)]
    return list(predictor.predictions(examples)) if examples else []


def embed(model: Model, texts: Sequence[str], *, num_layers: int | None = None) -> np.ndarray:
    """A vector for each text, float32 [len(texts), H]; texts that mean the same lie close.

    A sentence-embedding run gives the vectors of its task, which have length 1. Any other model
    gives the mean of the last layer's states, special tokens included. A text that is too long is
    truncated, with a warning. Raises DataError for an empty text.

    >>> embed(load(directory), ["the file is found", "it is"]).shape
    (2, 16)
    """
    from albert_jax.inference import embed as embedding
    from albert_jax.model.sharing import check_depth

    check_texts(texts)
    if num_layers is not None:
        check_depth(model.config, num_layers)
    where = [f"texts[{i}]" for i in range(len(texts))]
    found = embedding.token_rows(model, texts, where)
    if truncated := embedding.truncated_texts(found):
        warnings.warn(truncated, stacklevel=2)
    return embedding.embed_rows(model, found, num_layers)


def tokenize(model: Model | Vocabulary, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The "tokens" and "ids" of each "text", without the special tokens around it.

    The first token of a word begins with "\u2581" (SentencePiece), or the others with "##"
    (WordPiece). [MASK] in a text is the mask token.

    >>> [found] = tokenize(load(directory), ["the file"])
    >>> found["tokens"], len(found["ids"])
    (['\u2581', 'the', '\u2581file'], 3)
    """
    from albert_jax.data.vocabularies import masked_text

    check_texts(texts)
    vocabulary = model.vocabulary if isinstance(model, Model) else model
    return masked_text.tokenize(vocabulary, texts)


def score(
    model: Model, texts: Sequence[str], *, num_layers: int | None = None
) -> list[dict[str, Any]]:
    """The pseudo-log-likelihood of each sentence, as "score" in nats beside "text" and "tokens".

    Each token is masked in turn, together with the later tokens of its word. Of two sentences that
    differ in one point, the one with the higher score is the likelier one. Raises CheckpointError
    for a model without masked-language head, and DataError for a text that is empty or too long.

    >>> [found] = score(load(directory), ["the file is found"])
    >>> found["score"] < 0, found["tokens"]
    (True, 6)
    """
    from albert_jax.inference.scoring import score_texts
    from albert_jax.model.sharing import check_depth

    check_texts(texts)
    if num_layers is not None:
        check_depth(model.config, num_layers)
    where = [f"texts[{i}]" for i in range(len(texts))]
    return score_texts(model, texts, where, num_layers=num_layers)


def finetune(
    out: str,
    *,
    task: str | None = None,
    train: str | None = None,
    dev: str | None = None,
    init: str | None = None,
    config: str | None = None,
    columns: Sequence[str] | None = None,
    teacher: str | None = None,
    num_layers: int | None = None,
    max_steps: int | None = None,
    allow_change: Sequence[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> Model:
    """Fine-tunes on labeled examples in files, or continues the run in `out`; returns the model.

    The arguments are the options of `albert-jax finetune`; every other field of the config is an
    entry of `fields`. Without `init` a small random network is trained. Raises ConfigError,
    DataError and CheckpointError for arguments, examples and weights that do not fit each other.

    >>> model = finetune(out, task="classification", train=examples, dev=examples, init=directory,
    ...                  max_steps=2, fields={"optimizer.learning_rate": 1e-3})
    >>> predict(model, ["the file is not found"])[0]["label"] in ("yes", "no")
    True
    """
    from albert_jax import configfile
    from albert_jax.finetuning import finetune as finetuning
    from albert_jax.finetuning import run_config
    from albert_jax.model_io import run_record

    for names in (columns, allow_change):
        check_texts(names)
    init, _ = run_record.starting_point(out, init)
    chosen, given = run_config.defaults(config, init, task)
    chosen = run_config.with_files(chosen, train=train, dev=dev, teacher=teacher, columns=columns)
    if fields:
        chosen = configfile.with_fields(chosen, fields)
        given |= {path.replace("-", "_") for path in fields}
    finetuning.run(
        chosen,
        out,
        init=init,
        num_layers=num_layers,
        max_steps=max_steps,
        allow_change=tuple(allow_change),
        given=given,
    )
    return load(out)


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
    text is. Raises ConfigError for a string in place of a list of them.

    >>> batch = rows(load(directory).vocabulary, ["the file is not found"], ["it is"], length=16)
    >>> batch["input_ids"].shape, batch["token_type_ids"].max(), batch["cls_positions"].tolist()
    ((1, 16), np.int32(1), [[0]])
    """
    from albert_jax.tasks.support.rows import sequence, sequence_rows

    check_texts(texts)
    check_texts(second)
    if second is not None and len(second) != len(texts):
        raise ConfigError(f"{len(texts)} texts and {len(second)} second ones: give as many of both")
    columns = [vocabulary.encode(list(column)) for column in (texts, second) if column is not None]
    sequences = [sequence(vocabulary, parts, length) for parts in zip(*columns, strict=True)]
    return sequence_rows(sequences, length)


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

    Batch k is a pure function of (text, phase, seed, k). Raises DataError for an incomplete folder.

    >>> phase = PhaseConfig(steps=3, sequence_length=16, batch_size=4)
    >>> [batch["mlm_labels"].shape for batch in batches([prepared], phase, first_step=1)]
    [(4, 2), (4, 2)]
    """
    from albert_jax.data.batches import pipeline
    from albert_jax.data.batches.builder import BatchBuilder
    from albert_jax.data.corpus.corpus import Corpus

    if isinstance(prepared, str) or not prepared:
        raise ConfigError(f"prepared is {prepared!r}: give a list of prepared folders")
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
    compute: ComputeConfig = FLOAT32,
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
    for name, loss in loss_terms.means(result.terms, totals).items():
        weight = totals[result.terms[name].weights]
        parts[f"{name}_loss"] = loss
        parts[f"{name}_accuracy"] = result.sums[f"{name}_correct"] / jnp.maximum(weight, 1.0)
    return loss_terms.mean(result.terms, totals), parts
