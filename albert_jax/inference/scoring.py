"""Pseudo-log-likelihood of sentences, and accuracy on minimal pairs, without fine-tuning.

Every token of a sentence is masked in turn, together with the later tokens of its own word, which
would give it away (Kauf and Ivanova 2023, "within-word left-to-right"). The score of a sentence
is the sum of its tokens' log-probabilities. There is one row per token, so that batches mix rows
of many sentences.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import Config
from albert_jax.data.sources.tables import Record, read_records, text_field
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, DataError
from albert_jax.inference.masked_lm import logits_function, masked_batches
from albert_jax.model import attention
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.features import sequence
from albert_jax.tasks.support.metrics import Interval, bootstrap
from albert_jax.tasks.task import Batch

BATCH_SIZE = 64
"""Masked copies of sentences in a batch, at most."""

ALL_PAIRS = "all"
"""Name of all sets of minimal pairs together."""
SET_COLUMNS = ("UID", "set", "group")
"""Columns that name the set of a pair, the first one that is there."""


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point; the first one is right."""

    where: str
    good: str
    bad: str
    group: str = ""
    """The set that the pair belongs to."""


@dataclass(frozen=True)
class MaskedToken:
    """A copy of a sentence in which one token, and the rest of its word, is masked."""

    sentence: int
    """Number of the sentence."""
    ids: np.ndarray
    """int32 [n], special tokens included."""
    position: int
    label: int
    """The id that was masked."""


def score_sentences(
    model: Model, texts: Sequence[str], where: Sequence[str], *, num_layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-log-likelihoods in nats, float64 [texts], and numbers of tokens, int64 [texts].

    `where` names the place of each text for error messages. Raises CheckpointError for a model
    without masked-language head, and DataError for a sentence that is empty or too long.
    """
    if "mlm_head" not in model.params:
        raise CheckpointError(f"{model.source} has no masked-language head: score another model")
    program = _program(model.run_config, num_layers)
    max_length = model.config.max_position_embeddings
    masked = mask_each_token(model.vocabulary, texts, where, max_length)
    scores = log_likelihoods(masked, lambda batch: program(model.params, batch), max_length)
    return scores, np.bincount([copy.sentence for copy in masked])


def scored(
    model: Model, texts: Sequence[str], where: Sequence[str], *, num_layers: int | None = None
) -> list[dict[str, Any]]:
    """The "text", "score" and number of "tokens" of each sentence; see `score_sentences`."""
    if not texts:
        return []
    scores, counts = score_sentences(model, texts, where, num_layers=num_layers)
    return [
        {"text": text, "score": float(score), "tokens": int(count)}
        for text, score, count in zip(texts, scores, counts, strict=True)
    ]


def mask_each_token(
    vocabulary: Vocabulary, texts: Sequence[str], where: Sequence[str], max_length: int
) -> list[MaskedToken]:
    """One masked copy for every token of every sentence, in order.

    Raises DataError for a sentence that is empty or longer than `max_length` with its special
    tokens: cutting it would compare scores of different sentences.
    """
    copies = []
    for number, (place, ids) in enumerate(zip(where, vocabulary.encode(list(texts)), strict=True)):
        if not 1 <= len(ids) <= max_length - 2:
            raise DataError(
                f"{place}: the sentence has {len(ids)} tokens, the model takes 1 to "
                f"{max_length - 2}: shorten it or drop the line"
            )
        complete = sequence(vocabulary, [ids], max_length).ids
        starts_word = vocabulary.starts_word[ids].astype(bool)
        for i in range(len(ids)):
            word_end = i + 1
            while word_end < len(ids) and not starts_word[word_end]:
                word_end += 1
            masked = complete.copy()
            masked[i + 1 : word_end + 1] = vocabulary.mask_id
            copies.append(MaskedToken(number, masked, i + 1, int(ids[i])))
    return copies


def log_likelihoods(
    masked: Sequence[MaskedToken],
    label_log_probs: Callable[[Batch], Any],
    max_length: int,
    *,
    shards: int = 1,
) -> np.ndarray:
    """Pseudo-log-likelihoods in nats, float64 [sentences], from the copies of `mask_each_token`.

    `label_log_probs` gives the log-probability of each row's label in a batch, [B]; B is a
    multiple of `shards`.
    """
    scores = np.zeros(masked[-1].sentence + 1)
    ids, positions = [copy.ids for copy in masked], [[copy.position] for copy in masked]
    for chosen, batch in masked_batches(ids, positions, max_length, BATCH_SIZE, shards=shards):
        batch["mlm_labels"] = np.zeros_like(batch["mlm_positions"])
        batch["mlm_labels"][: len(chosen), 0] = [masked[i].label for i in chosen]
        log_probs = np.asarray(label_log_probs(batch), np.float64)[: len(chosen)]
        np.add.at(scores, [masked[i].sentence for i in chosen], log_probs)
    return scores


def label_log_probs(
    run_config: Config, num_layers: int | None, backend: attention.Backend
) -> Callable[[Any, Any], jax.Array]:
    """The function (params, batch) -> log-probabilities float32 [B] of each row's one label."""
    logits = logits_function(run_config.model, run_config.compute, backend, num_layers)

    def log_probs(params: Any, batch: Any) -> jax.Array:
        every = jax.nn.log_softmax(logits(params, batch))
        return jnp.take_along_axis(every, batch["mlm_labels"][..., None], -1)[:, 0, 0]

    return log_probs


@functools.lru_cache(maxsize=8)
def _program(run_config: Config, num_layers: int | None) -> Any:
    """The compiled form, one per structure, so that another checkpoint compiles nothing."""
    backend = attention.fastest(run_config, jax.local_devices()[0])
    return jax.jit(label_log_probs(run_config, num_layers, backend))


def minimal_pairs(records: Sequence[Record]) -> list[MinimalPair]:
    """Pairs in BLiMP's form: sentence_good, sentence_bad, and UID (or set) for the set's name."""
    pairs = []
    for record in records:
        group = next((str(record.fields[n]) for n in SET_COLUMNS if n in record.fields), "")
        good, bad = text_field(record, "sentence_good"), text_field(record, "sentence_bad")
        if group == ALL_PAIRS:
            raise DataError(
                f"{record.where}: a set named {ALL_PAIRS!r}, which is all sets; rename it"
            )
        if good == bad:
            raise DataError(f"{record.where}: the two sentences are equal; a pair must differ")
        pairs.append(MinimalPair(record.where, good, bad, group))
    return pairs


def read_minimal_pairs(path: str) -> list[MinimalPair]:
    """The pairs of a table; see `minimal_pairs`. Raises DataError."""
    return minimal_pairs(read_records(path))


def pair_sentences(pairs: Sequence[MinimalPair]) -> tuple[list[str], list[str]]:
    """(sentences, place of each): the good and the bad one of every pair in turn."""
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    return texts, [pair.where for pair in pairs for _ in range(2)]


def pair_accuracy(
    pairs: Sequence[MinimalPair], good: np.ndarray, bad: np.ndarray
) -> dict[str, Interval]:
    """Share of pairs whose good sentence scores higher, with its interval; a tie counts half.

    The keys are "all" and then the name of each set, in order.
    """
    correct = np.where(good == bad, 0.5, (good > bad).astype(np.float64))
    names = np.array([pair.group for pair in pairs])
    accuracies = {ALL_PAIRS: bootstrap(np.mean, correct)}
    for name in sorted(set(names.tolist()) - {""}):
        accuracies[name] = bootstrap(np.mean, correct[names == name])
    return accuracies
