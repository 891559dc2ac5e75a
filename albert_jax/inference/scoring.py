"""Pseudo-log-likelihood of sentences, without fine-tuning.

Every token of a sentence is masked in turn, together with the later tokens of its own word, which
would give it away (Kauf and Ivanova 2023, "within-word left-to-right"). The score of a sentence
is the sum of its tokens' log-probabilities. There is one row per token, and rows that are equal
are computed once: the sentences of a minimal pair often share the row that masks their difference.

Legend: R masked rows, n ids of a row with its special tokens, B rows of a batch, L labels of a row.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, DataError
from albert_jax.inference.masked_lm import logits_function
from albert_jax.inference.words import continues_word
from albert_jax.model import attention, unroll
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.rows import Batch, encode_all, fitting_length

BATCH_TOKENS = 2048
"""Tokens of a full batch, padding included: what a CPU keeps in its caches."""
LENGTH_STEP = 4
"""Full batches have rows of a multiple of this; fewer tokens of padding, and more programs."""
AHEAD = 2
"""Batches that are started before the first one's results are read."""
LABELS = 2
"""Labels of a row, at most; where equal rows have more, the row is computed again."""
CHUNK_TOKENS = 1 << 24
"""Tokens of the rows that are held at a time."""


class MaskedRows(NamedTuple):
    """Copies of sentences in which one token, and the rest of its word, is masked."""

    ids: np.ndarray
    """int32 [R, n], special tokens included, padded at the end."""
    lengths: np.ndarray
    """int32 [R]: ids of each row that are not padding."""
    positions: np.ndarray
    """int32 [R]: the position to predict."""
    labels: np.ndarray
    """int32 [R, L]: the ids that were masked there."""
    sentences: np.ndarray
    """int64 [R, L]: number of the sentence that each label belongs to; -1 where there is none."""

    def take(self, rows: Any) -> MaskedRows:
        """Some of the rows."""
        return MaskedRows(*(column[rows] for column in self))

    def after(self, others: MaskedRows) -> MaskedRows:
        """These rows after others, which are not longer."""
        padded = np.pad(others.ids, ((0, 0), (0, self.ids.shape[1] - others.ids.shape[1])))
        columns = zip(others._replace(ids=padded), self, strict=True)
        return MaskedRows(*(np.concatenate(pair) for pair in columns))

    def batch(self, length: int, size: int) -> Batch:
        """The encoder's inputs [size, length], mlm_positions [size, 1], mlm_labels [size, L]."""
        more = size - len(self.ids)
        ids = np.pad(self.ids, ((0, more), (0, length - self.ids.shape[1])))
        places = np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape)
        used = places < np.pad(self.lengths, (0, more))[:, None]
        return {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "segment_ids": used.astype(np.int32),
            "positions": places * used,
            "cls_positions": np.zeros((size, 1), np.int32),
            "mlm_positions": np.pad(self.positions, (0, more))[:, None],
            "mlm_labels": np.pad(self.labels, ((0, more), (0, 0))),
        }


def score_sentences(
    model: Model, texts: Sequence[str], where: Sequence[str], *, num_layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-log-likelihoods in nats, float64 [texts], and numbers of tokens, int64 [texts].

    `where` names the place of each text for error messages. Raises CheckpointError for a model
    without masked-language head, and DataError for a sentence that is empty or too long.
    """
    if "mlm_head" not in model.params:
        raise CheckpointError(f"{model.source} has no masked-language head: score another model")
    program = _program(model.config, num_layers)
    max_length = model.config.max_position_embeddings
    sentences = encode_sentences(model.vocabulary, texts, where, max_length)
    scores = log_likelihoods(
        sentences, model.vocabulary, lambda batch: program(model.params, batch), max_length
    )
    return scores, np.array([len(ids) for ids in sentences])


def score_texts(
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


def encode_sentences(
    vocabulary: Vocabulary, texts: Sequence[str], where: Sequence[str], max_length: int
) -> list[np.ndarray]:
    """The ids of each sentence, int32 [tokens], without special tokens.

    Raises DataError for a sentence that is empty or longer than `max_length` with its special
    tokens: cutting it would compare scores of different sentences.
    """
    if len(texts) and vocabulary.cls_id < 0:
        raise DataError("a vocabulary without [CLS] scores no sentences: give another model")
    ids_of = encode_all(vocabulary, texts)
    for place, text in zip(where, texts, strict=True):
        if not 1 <= len(ids_of(text)) <= max_length - 2:
            raise DataError(
                f"{place}: the sentence has {len(ids_of(text))} tokens, the model takes 1 to "
                f"{max_length - 2}: shorten it or drop the line"
            )
    return [ids_of(text) for text in texts]


def log_likelihoods(
    sentences: Sequence[np.ndarray],
    vocabulary: Vocabulary,
    label_log_probs: Callable[[Batch], Any],
    max_length: int,
    *,
    shards: int = 1,
) -> np.ndarray:
    """Pseudo-log-likelihoods in nats, float64 [sentences], of what `encode_sentences` returns.

    `label_log_probs` gives the log-probabilities of each row's labels in a batch, [B, L]; B is a
    multiple of `shards`.
    """
    scores, running = np.zeros(len(sentences)), deque()

    def add(rows: MaskedRows, found: Any) -> None:
        log_probs, known = np.asarray(found, np.float64)[: len(rows.ids)], rows.sentences >= 0
        np.add.at(scores, rows.sentences[known], log_probs[known])

    for rows, batch in _batches(_masked_rows(vocabulary, sentences), max_length, shards):
        running.append((rows, label_log_probs(batch)))
        if len(running) > AHEAD:
            add(*running.popleft())
    for rows, found in running:
        add(rows, found)
    return scores


def mask_each_token(
    vocabulary: Vocabulary, ids: np.ndarray, sentences: Sequence[int]
) -> MaskedRows:
    """One row for every token of sentences of one length, int32 [sentences, tokens], in order.

    `sentences` are their numbers. Rows have one label each.
    """
    count, tokens = ids.shape
    places = np.arange(tokens)
    starts = ~continues_word(vocabulary, ids)
    # Words by number: what is after a token in its own word has the same number.
    word = np.cumsum(starts, axis=1)
    same_word = word[:, :, None] == word[:, None, :]
    masked = same_word & (places[:, None] <= places)
    rows = np.empty((count, tokens, tokens + 2), np.int32)
    rows[:, :, 0], rows[:, :, -1] = vocabulary.cls_id, vocabulary.sep_id
    rows[:, :, 1:-1] = np.where(masked, vocabulary.mask_id, ids[:, None])
    return MaskedRows(
        rows.reshape(-1, tokens + 2),
        np.full(count * tokens, tokens + 2, np.int32),
        np.tile(places.astype(np.int32) + 1, count),
        ids.reshape(-1, 1),
        np.repeat(np.asarray(sentences), tokens)[:, None],
    )


def distinct(rows: MaskedRows) -> MaskedRows:
    """Each row and position once, with up to L labels, in the order of first appearance."""
    keys = np.concatenate([rows.ids, rows.positions[:, None]], axis=1)
    keys = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1] * keys.itemsize)))
    _, group = np.unique(keys.ravel(), return_inverse=True)
    # The n-th of equal rows is label n % L of the n // L-th row that is computed for them.
    order = np.argsort(group, kind="stable")
    ranks = np.empty_like(order)
    first = np.searchsorted(group[order], group[order])
    ranks[order] = np.arange(len(order)) - first
    kept = np.flatnonzero(ranks % LABELS == 0)
    row = group * (len(group) // LABELS + 1) + ranks // LABELS
    by_row = np.argsort(row[kept])
    into = by_row[np.searchsorted(row[kept], row, sorter=by_row)], ranks % LABELS
    labels = np.zeros((len(kept), LABELS), np.int32)
    sentences = np.full((len(kept), LABELS), -1)
    labels[into], sentences[into] = rows.labels[:, 0], rows.sentences[:, 0]
    return rows.take(kept)._replace(labels=labels, sentences=sentences)


def _masked_rows(vocabulary: Vocabulary, sentences: Sequence[np.ndarray]) -> Iterator[MaskedRows]:
    """The distinct rows of all sentences, the shortest first, a chunk of one length at a time."""
    numbers = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    for tokens, equally_long in itertools.groupby(numbers, key=lambda i: len(sentences[i])):
        chosen = list(equally_long)
        step = max(1, CHUNK_TOKENS // (tokens * (tokens + 2)))
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            yield distinct(
                mask_each_token(vocabulary, np.stack([sentences[i] for i in part]), part)
            )


def _batches(
    chunks: Iterator[MaskedRows], max_length: int, shards: int
) -> Iterator[tuple[MaskedRows, Batch]]:
    """Full batches of rows of about one length, and a last one of what is left of all.

    What does not fill a batch waits for longer rows, so that few programs are compiled. The batch
    after the rows may hold rows of padding more.
    """
    rest: MaskedRows | None = None
    for chunk in chunks:
        rest = chunk if rest is None else chunk.after(rest)
        length = min(max_length, -(-rest.ids.shape[1] // LENGTH_STEP) * LENGTH_STEP)
        size = -(-max(1, BATCH_TOKENS // length) // shards) * shards
        full = len(rest.ids) // size * size
        for start in range(0, full, size):
            rows = rest.take(slice(start, start + size))
            yield rows, rows.batch(length, size)
        rest = rest.take(slice(full, None))
    if rest is not None and len(rest.ids):
        length = fitting_length(rest.ids.shape[1], max_length)
        size = 1 << (len(rest.ids) - 1).bit_length()
        yield rest, rest.batch(length, -(-size // shards) * shards)


def label_log_probs(
    config: ModelConfig, compute: ComputeConfig, backend: attention.Backend, num_layers: int | None
) -> Callable[[Any, Any], jax.Array]:
    """The function (params, batch) -> log-probabilities float32 [B, L] of each row's labels."""
    logits = logits_function(config, compute, backend, num_layers)

    def log_probs(params: Any, batch: Any) -> jax.Array:
        every = logits(params, batch)[:, 0]
        of_labels = jnp.take_along_axis(every, batch["mlm_labels"], axis=1)
        return of_labels - jax.nn.logsumexp(every, axis=1, keepdims=True)

    return log_probs


@functools.lru_cache(maxsize=8)
def _program(config: ModelConfig, num_layers: int | None) -> Any:
    """The compiled form, one per structure, so that another checkpoint compiles nothing."""
    compute = unroll.inference_compute(config, num_layers)
    return jax.jit(label_log_probs(config, compute, attention.XLA, num_layers))
