"""Scores of sentences without fine-tuning: pseudo-log-likelihood.

Each token is masked in turn, together with the later pieces of its own word, which would give
it away (Kauf and Ivanova 2023, "within-word left-to-right"); the score of a sentence is the sum
of its tokens' log-probabilities. One row per token, so rows of many sentences share batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.errors import DataError
from albert_jax.tasks.examples import MinimalPair
from albert_jax.tasks.metrics import Interval, bootstrap
from albert_jax.tasks.old_features import Batch, Encoder, Tokens, sequence_rows
from albert_jax.tasks.tables import ALL_PAIRS


@dataclass(frozen=True)
class MaskedPlace:
    """One question to the model: a sentence, the place asked for and the places hidden."""

    sentence: int
    tokens: Tokens
    place: int
    hidden: tuple[int, ...]


def masked_places(
    encoder: Encoder,
    starts_word: np.ndarray,
    sentences: Sequence[str],
    length: int,
) -> list[MaskedPlace]:
    """All questions for the sentences, in order; ``starts_word`` bool [V].

    DataError for a sentence without tokens or longer than the rows: cutting it would compare
    scores of different sentences.
    """
    found = []
    for number, ids in enumerate(encoder.encode(list(sentences))):
        if not 1 <= len(ids) <= length - 2:
            raise DataError(
                f"sentence {number + 1} has {len(ids)} tokens, rows of {length} take 1 to "
                f"{length - 2}; lengthen the rows or shorten it"
            )
        whole = np.concatenate(([encoder.cls_id], ids, [encoder.sep_id])).astype(np.int32)
        tokens = Tokens(whole, len(whole))
        begins = starts_word[ids].astype(bool)
        for i in range(len(ids)):
            stop = i + 1
            while stop < len(ids) and not begins[stop]:
                stop += 1
            found.append(MaskedPlace(number, tokens, i + 1, tuple(range(i + 1, stop + 1))))
    return found


def place_batches(
    encoder: Encoder, places: Sequence[MaskedPlace], length: int, rows: int
) -> Iterator[tuple[Sequence[MaskedPlace], Batch]]:
    """Batches of ``rows`` rows (the last filled up) with one mlm place each, weight 1."""
    for begin in range(0, len(places), rows):
        part = places[begin : begin + rows]
        batch = sequence_rows([place.tokens for place in part], length, rows)
        for name, kind in (
            ("mlm_positions", np.int32),
            ("mlm_labels", np.int32),
            ("mlm_weights", np.float32),
        ):
            batch[name] = np.zeros((rows, 1), kind)
        for i, asked in enumerate(part):
            batch["mlm_positions"][i, 0] = asked.place
            batch["mlm_labels"][i, 0] = asked.tokens.ids[asked.place]
            batch["mlm_weights"][i, 0] = 1
            batch["input_ids"][i, list(asked.hidden)] = encoder.mask_id
        yield part, batch


def sentence_scores(
    places: Sequence[MaskedPlace], log_probs: np.ndarray, sentences: int
) -> np.ndarray:
    """Pseudo-log-likelihoods float64 [sentences] from the places' log-probabilities [places]."""
    owners = np.array([place.sentence for place in places], np.int64)
    return np.bincount(owners, weights=np.asarray(log_probs, np.float64), minlength=sentences)


def pair_accuracy(
    pairs: Sequence[MinimalPair], good: np.ndarray, bad: np.ndarray, seed: int = 0
) -> dict[str, Interval]:
    """Share of pairs whose good sentence scores higher (a tie counts half), with intervals.

    Keys: "all", then each set's name in order.
    """
    right = np.where(good == bad, 0.5, (good > bad).astype(np.float64))
    names = np.array([pair.group for pair in pairs])

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    found = {ALL_PAIRS: bootstrap(mean, right, seed=seed)}
    for name in sorted(set(names.tolist()) - {""}):
        found[name] = bootstrap(mean, right[names == name], seed=seed)
    return found
