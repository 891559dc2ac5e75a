"""Augmentation: copies of training examples in which a masked-language model replaces words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.data import counter_rng
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import special_ids
from albert_jax.errors import CheckpointError
from albert_jax.inference.masked_lm import logits_function, masked_batch
from albert_jax.model_io.model import Model
from albert_jax.tasks.support import rows
from albert_jax.tasks.support.prediction import length_buckets

BATCH_SIZE = 32
TOP_K = 20
"""Tokens that a word is drawn from."""
# Keys of the draws of one purpose each.
_WORDS, _TOKENS = 0xA06, 0xA07


@dataclasses.dataclass(frozen=True)
class _MaskedText:
    """A text with words replaced by one mask each."""

    ids: np.ndarray
    spelled: list[str]
    """The characters that each token covers: those of unknown tokens are kept too."""
    masks: np.ndarray
    """Positions of the masks."""
    key: int
    """Key of the draws."""


def augment(model: Model, examples: Sequence[Any], config: Any, seed: int) -> list[Any]:
    """Changed copies of every example with its label: all first copies, then all second ones.

    `config` is that of a task whose examples have `texts`. In each text augment_share of the words
    (at least one) are masked, and the model draws a word of one token for each from its TOP_K, all
    at once. Which words are replaced, and by what, is a pure function of (seed, number of the
    example, number of the copy). Texts that the model cannot hold are truncated.

    Raises CheckpointError for a model without masked-language head.
    """
    if "mlm_head" not in model.params:
        raise CheckpointError(
            f"{model.source} has no masked-language head, which task.augment needs: name a "
            "pretrained model as task.augment_from"
        )
    ids = rows.encode_all(model.vocabulary, (text for x in examples for text in x.texts))
    share = config.augment_share
    masked = [
        _mask_words(model, text, ids(text), share, counter_rng.key(seed, number, copy, part))
        for copy in range(config.augment)
        for number, example in enumerate(examples)
        for part, text in enumerate(example.texts)
    ]
    texts = iter(_fill(model, masked))
    return [
        dataclasses.replace(
            example,
            where=f"{example.where} (changed copy {copy + 1})",
            texts=tuple(next(texts) for _ in example.texts),
        )
        for copy in range(config.augment)
        for example in examples
    ]


def _mask_words(model: Model, text: str, ids: np.ndarray, share: float, key: int) -> _MaskedText:
    ids = ids[: model.config.max_position_embeddings - 2]
    begins = model.vocabulary.starts_word[ids].astype(bool)
    begins[:1] = True
    word, count = np.cumsum(begins) - 1, int(begins.sum())
    order = counter_rng.permutation(counter_rng.key(key, _WORDS), count)
    masked = np.isin(word, order[: max(1, round(share * count))])
    kept = ~masked | begins  # A masked word becomes one mask, at its first token.
    changed = np.where(masked, model.vocabulary.mask_id, ids)[kept]
    spelled = model.vocabulary.token_texts(text)
    spelled = [spelled[i] for i in np.flatnonzero(kept)]
    return _MaskedText(changed, spelled, np.flatnonzero(masked[kept]), key)


def _fill(model: Model, masked: Sequence[_MaskedText]) -> list[str]:
    """The texts with their masks filled, in batches of a few lengths."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model import attention

    vocabulary, run_config = model.vocabulary, model.run_config
    backend = attention.fastest(run_config, jax.local_devices()[0])
    allowed = vocabulary.starts_word.astype(bool).copy()
    allowed[special_ids(vocabulary)] = False
    # A lone word mark also begins a word but is not one.
    allowed &= [bool(vocabulary.id_to_token(id).strip(SPACE)) for id in range(vocabulary.size)]
    count = min(TOP_K, int(allowed.sum()))
    logits = logits_function(run_config.model, run_config.compute, backend)

    @jax.jit
    def top(params: Any, batch: Any) -> Any:
        return jax.lax.top_k(jnp.where(allowed, logits(params, batch), -jnp.inf), count)

    maximum = model.config.max_position_embeddings
    texts = [""] * len(masked)
    for length, numbers in length_buckets([len(text.ids) + 2 for text in masked], maximum):
        for begin in range(0, len(numbers), BATCH_SIZE):
            part = numbers[begin : begin + BATCH_SIZE]
            sequences = [rows.sequence(vocabulary, [masked[i].ids], length).ids for i in part]
            positions = [masked[i].masks + 1 for i in part]
            batch = masked_batch(sequences, positions, length, BATCH_SIZE)
            values, tokens = jax.device_get(top(model.params, batch))
            for row, number in enumerate(part):
                text, size = masked[number], len(masked[number].masks)
                words = list(text.spelled)
                drawn = _draw(text.key, values[row, :size], tokens[row, :size])
                for place, id in zip(text.masks, drawn.tolist(), strict=True):
                    space = " " * words[place].startswith(" ")
                    words[place] = space + vocabulary.decode([id])
                texts[number] = "".join(words).strip()
    return texts


def _draw(key: int, logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """One of the `tokens` [masks, k] for each mask, drawn by its probability (the Gumbel trick)."""
    counters = np.arange(logits.size).reshape(logits.shape)
    bits = counter_rng.bits(counter_rng.key(key, _TOKENS), counters)
    noise = -np.log(-np.log(counter_rng.uniform(bits) + 1e-12) + 1e-12)
    chosen = np.argmax(logits.astype(np.float64) + noise, axis=-1)
    return np.take_along_axis(tokens, chosen[:, None], 1)[:, 0]
