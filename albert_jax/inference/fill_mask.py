"""The words that a model predicts for [MASK], with their probabilities."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.masked_text import MASK, check_texts, encode_masked
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary, special_ids
from albert_jax.errors import CheckpointError, ConfigError, DataError
from albert_jax.inference.masked_lm import logits_function, masked_batches
from albert_jax.inference.words import continues_word
from albert_jax.model.attention import XLA
from albert_jax.model.unroll import inference_compute
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.rows import sequence

BATCH_SIZE = 16


class Candidate(NamedTuple):
    """One prediction for one mask."""

    word: str
    """The token as text; one that continues a word begins with "##"."""
    id: int
    probability: float


def fill_mask(model: Model, texts: Sequence[str], *, top_k: int = 5) -> list[list[list[Candidate]]]:
    """Predicts the `top_k` most probable tokens for every [MASK], in lists by text, mask and rank.

    The masks of one text do not see each other's predictions; special tokens are left out. Raises
    DataError if a text has no [MASK] or is longer than the model reads (the message gives its
    number), CheckpointError if the model has no masked-language head, and ConfigError for a `top_k`
    below 1.

    >>> [[candidates]] = fill_mask(load(directory), ["the file is [MASK]."], top_k=3)
    >>> len(candidates), candidates[0].probability >= candidates[1].probability
    (3, True)
    """
    check_texts(texts)
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}: give at least 1")
    if "mlm_head" not in model.params:
        raise CheckpointError(
            f"{model.source} has no masked-language head: name a pretrained run, or an export of "
            "one with its heads"
        )
    vocabulary, max_length = model.vocabulary, model.config.max_position_embeddings
    sequences = [
        _encode(text, number, vocabulary, max_length) for number, text in enumerate(texts, start=1)
    ]
    masks = [np.flatnonzero(ids == vocabulary.mask_id) for ids in sequences]
    predictions: list[list[list[Candidate]]] = [[] for _ in texts]
    program = _program(model.config)
    for chosen, batch in masked_batches(sequences, masks, max_length, BATCH_SIZE):
        logits = np.asarray(program(model.params, batch), np.float64)
        for row, i in enumerate(chosen):
            predictions[i] = [
                most_probable(logits[row, mask], vocabulary, top_k) for mask in range(masks[i].size)
            ]
    return predictions


def most_probable(logits: np.ndarray, vocabulary: Vocabulary, top_k: int) -> list[Candidate]:
    """The `top_k` most probable tokens under logits [V], special ones and bare marks left out."""
    probabilities = softmax(logits)
    allowed = probabilities.copy()
    allowed[special_ids(vocabulary)] = -1.0
    ranked = (int(id) for id in np.argsort(-allowed, kind="stable") if allowed[id] >= 0)
    # A bare mark of a word's start is not a word: it only stands before a token without one.
    words = ((_word(id, vocabulary), id) for id in ranked if vocabulary.id_to_token(id) != SPACE)
    return [
        Candidate(word, id, float(probabilities[id])) for word, id in itertools.islice(words, top_k)
    ]


def _encode(text: str, number: int, vocabulary: Vocabulary, max_length: int) -> np.ndarray:
    """[CLS] text [SEP] as int32 ids."""
    if MASK not in text:
        raise DataError(f"text {number} has no {MASK}: write {MASK} where a word is wanted: {text}")
    text_ids = encode_masked(text, vocabulary)
    ids = sequence(vocabulary, [text_ids], len(text_ids) + 2).ids
    if len(ids) > max_length:
        raise DataError(
            f"text {number} has {len(ids)} tokens, but the model reads {max_length}: shorten it"
        )
    return ids


@functools.lru_cache(maxsize=8)
def _program(config: ModelConfig) -> Any:
    """The compiled (params, batch) -> logits [B, P, V] in float32, one per structure."""
    return jax.jit(logits_function(config, inference_compute(config), XLA))


def _word(id: int, vocabulary: Vocabulary) -> str:
    word = vocabulary.decode([id]).strip() or vocabulary.id_to_token(id)
    inner = continues_word(vocabulary, np.array([id]))[0]
    return "##" + word if inner and word[0].isalnum() and not word.startswith("##") else word
