"""`albert-jax score`: pseudo-log-likelihoods of sentences, and accuracy on minimal pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax.config import Config
from albert_jax.errors import CheckpointError, DataError
from albert_jax.inference import depth
from albert_jax.inference import pseudo_likelihood as likelihood
from albert_jax.model_io.model import Model
from albert_jax.tasks import tables as formats
from albert_jax.tasks.examples import MinimalPair
from albert_jax.tasks.old_features import Batch, fitting_length

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary
    from albert_jax.model.attention import Backend

ROWS = 64
"""Masked copies of sentences in a batch."""


def score_file(
    model: Model, path: str, *, num_layers: int | None = None
) -> tuple[list[dict[str, Any]], str]:
    """(what is said about each sentence or pair, a table for pairs or "").

    A table with sentence_good and sentence_bad holds minimal pairs; a .txt holds a sentence per
    line, another table has them in the column "sentence" or "text".

    Raises DataError for a file or sentence that cannot be read, CheckpointError for a model
    without masked-language head, ConfigError for a depth that the model does not have.
    """
    if num_layers is not None:
        depth.check(model.config, num_layers)
    if path.endswith(".txt"):
        lines = formats.read_text(path).split("\n")
        records = [
            formats.Record(f"{path}:{n}", {"sentence": line})
            for n, line in enumerate(lines, start=1)
            if line.strip()
        ]
        if not records:
            raise DataError(f"{path}: no sentences: give a file with one per line")
    else:
        records = formats.read_records(path)
    if "sentence_good" in records[0].fields:
        return _pairs(model, records, num_layers)
    name = next((n for n in ("sentence", "text") if n in records[0].fields), "sentence")
    texts = [formats.text_field(record, name) for record in records]
    scores, counts = scored(
        model, texts, [record.where for record in records], num_layers=num_layers
    )
    found = [
        {"text": text, "score": float(score), "pieces": int(count)}
        for text, score, count in zip(texts, scores, counts, strict=True)
    ]
    return found, ""


def scored(
    model: Model, texts: Sequence[str], where: Sequence[str], *, num_layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-log-likelihoods in nats, float64 [texts], and pieces of each, int64 [texts]."""
    if "mlm_head" not in model.params:
        raise CheckpointError(f"{model.source} has no masked-language head: score another model")
    program = _program(model.run_config, num_layers)
    return likelihoods(
        model.vocabulary,
        texts,
        where,
        lambda batch: program(model.params, batch),
        most=model.config.max_position_embeddings,
    )


def likelihoods(
    vocabulary: Vocabulary,
    texts: Sequence[str],
    where: Sequence[str],
    log_probs: Callable[[Batch], Any],
    *,
    most: int,
    shards: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """What `scored` gives, by the log-probabilities [rows] of the labels of a batch's rows.

    Rows have at most `most` places; a batch's rows divide among `shards`. Raises DataError for a
    sentence that is empty or too long.
    """
    counts = check_lengths(vocabulary, texts, where, most)
    scores = np.zeros(len(texts))
    lengths = np.array([fitting_length(int(count) + 2, most) for count in counts])
    for length in sorted(set(lengths.tolist())):
        numbers = np.flatnonzero(lengths == length)
        places = likelihood.masked_places(
            vocabulary, vocabulary.starts_word, [texts[int(i)] for i in numbers], length
        )
        rows = -(-min(ROWS, 1 << (len(places) - 1).bit_length()) // shards) * shards
        values = [
            np.asarray(log_probs(batch))[: len(part)]
            for part, batch in likelihood.place_batches(vocabulary, places, length, rows)
        ]
        scores[numbers] = likelihood.sentence_scores(places, np.concatenate(values), len(numbers))
    return scores, counts


def check_lengths(
    vocabulary: Vocabulary, texts: Sequence[str], where: Sequence[str], most: int
) -> np.ndarray:
    """Pieces of each text, int64 [texts]; DataError for one that is empty or too long."""
    counts = np.array([len(ids) for ids in vocabulary.encode(list(texts))])
    for place, count in zip(where, counts, strict=True):
        if not 1 <= count <= most - 2:
            raise DataError(
                f"{place}: the sentence has {count} pieces, the model takes 1 to {most - 2}: "
                "shorten it or drop the line"
            )
    return counts


def label_log_probs(run_config: Config, num_layers: int | None, backend: Backend) -> Any:
    """(params, batch) -> log-probabilities float32 [rows] of the one label of each row."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model import albert

    def log_probs(params: Any, batch: Any) -> jax.Array:
        hidden = albert.encode(
            params,
            run_config.model,
            batch,
            compute=run_config.compute,
            num_layers=num_layers,
            backend=backend,
        )
        logits = albert.mlm_logits(params, run_config.model, hidden, batch["mlm_positions"])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["mlm_labels"][..., None], -1)
        return chosen[:, 0, 0]

    return log_probs


@functools.lru_cache(maxsize=8)
def _program(run_config: Config, num_layers: int | None) -> Any:
    """The jitted form; one per structure, so that another checkpoint compiles nothing."""
    import jax

    from albert_jax.model import attention

    backend = attention.fastest(run_config, jax.local_devices()[0])
    return jax.jit(label_log_probs(run_config, num_layers, backend))


def sides(pairs: Sequence[MinimalPair]) -> tuple[list[str], list[str]]:
    """(sentences, where each stands) of pairs: good and bad in turn."""
    texts = [text for pair in pairs for text in (pair.good, pair.bad)]
    return texts, [pair.where for pair in pairs for _ in range(2)]


def _pairs(
    model: Model, records: Sequence[formats.Record], num_layers: int | None
) -> tuple[list[dict[str, Any]], str]:
    pairs = formats.minimal_pairs(records)
    scores, _ = scored(model, *sides(pairs), num_layers=num_layers)
    good, bad = scores[::2], scores[1::2]
    found = [
        {"sentence_good": p.good, "sentence_bad": p.bad, "set": p.group,
         "score_good": float(g), "score_bad": float(b)}
        for p, g, b in zip(pairs, good, bad, strict=True)
    ]  # fmt: skip
    counts = {formats.ALL_PAIRS: len(pairs)}
    for pair in pairs:
        counts[pair.group] = counts.get(pair.group, 0) + 1
    accuracies = likelihood.pair_accuracy(pairs, good, bad)
    width = max(len(name) for name in accuracies)
    lines = [f"{'':{width}}  accuracy      95 % interval  pairs"]
    for name, (value, low, high) in accuracies.items():
        lines.append(f"{name:{width}}  {value:8.1%}  {low:7.1%} to {high:6.1%}  {counts[name]:5}")
    return found, "\n".join(lines)
