"""More training examples from few: words replaced by what a masked-language model writes there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.data import counter_rng as random
from albert_jax.errors import CheckpointError
from albert_jax.inference.masked_lm import (
    length_groups,
    logits_function,
    masked_batch,
    special_ids,
)
from albert_jax.model_io.model import Model
from albert_jax.tasks.examples import Sentences
from albert_jax.tasks.pieces import SPACE

ROWS = 32
"""Texts in a batch."""

LIKELIEST = 20
"""Pieces that a word is drawn from."""

_WORDS, _PIECES = 0xA06, 0xA07
"""What is drawn: the words that go, the pieces that come."""


@dataclasses.dataclass(frozen=True)
class _Gapped:
    """A text with words taken out: ids with a mask for each, and the key of its draws."""

    ids: np.ndarray
    gaps: np.ndarray
    key: int


def augmented(
    model: Model, examples: Sequence[Sentences], *, copies: int, share: float, seed: int
) -> list[Sentences]:
    """`copies` changed copies of every example, with its label: all first ones, all second ones.

    In each text a `share` of the words (at least one) is masked, and the model draws a word of
    one piece for each from its LIKELIEST, all at once. Which words go and what comes is a pure
    function of (seed, number of the example, number of the copy). Texts that the model cannot
    hold lose their end.

    Raises CheckpointError for a model without masked-language head.
    """
    if "mlm_head" not in model.params:
        raise CheckpointError(
            f"{model.source} has no masked-language head, which task.augment needs: name a "
            "pretrained model as task.augment_from"
        )
    distinct = list(dict.fromkeys(text for example in examples for text in example.texts))
    ids = dict(zip(distinct, model.vocabulary.encode(distinct), strict=True))
    gapped = [
        _gapped(model, ids[text], share, random.key(seed, number, copy, part))
        for copy in range(copies)
        for number, example in enumerate(examples)
        for part, text in enumerate(example.texts)
    ]
    texts = iter(_filled(model, gapped))
    return [
        dataclasses.replace(
            example,
            where=f"{example.where} (changed copy {copy + 1})",
            texts=tuple(next(texts) for _ in example.texts),
        )
        for copy in range(copies)
        for example in examples
    ]


def _gapped(model: Model, ids: np.ndarray, share: float, key: int) -> _Gapped:
    ids = np.asarray(ids)[: model.config.max_position_embeddings - 2]
    begins = model.vocabulary.starts_word[ids].astype(bool)
    begins[:1] = True
    word = np.cumsum(begins) - 1
    words = int(begins.sum())
    order = np.argsort(random.bits(random.key(key, _WORDS), np.arange(words)), kind="stable")
    gone = np.isin(word, order[: max(1, round(share * words))])
    changed = np.where(gone, model.vocabulary.mask_id, ids)[~gone | begins]
    return _Gapped(changed, np.flatnonzero(gone[~gone | begins]), key)


def _filled(model: Model, gapped: Sequence[_Gapped]) -> list[str]:
    """The texts with their gaps filled, by batches of a few lengths."""
    import jax
    import jax.numpy as jnp

    from albert_jax.model import attention

    vocabulary, run_config = model.vocabulary, model.run_config
    backend = attention.fastest(run_config, jax.local_devices()[0])
    allowed = vocabulary.starts_word.astype(bool).copy()
    allowed[special_ids(vocabulary)] = False
    # A space alone starts a word too, and is none.
    allowed &= [bool(vocabulary.id_to_token(id).strip(SPACE)) for id in range(vocabulary.size)]
    count = min(LIKELIEST, int(allowed.sum()))

    logits = logits_function(run_config.model, run_config.compute, backend)

    @jax.jit
    def likeliest(params: Any, batch: Any) -> Any:
        return jax.lax.top_k(jnp.where(allowed, logits(params, batch), -jnp.inf), count)

    most = model.config.max_position_embeddings
    texts = [""] * len(gapped)
    for length, numbers in length_groups([len(one.ids) + 2 for one in gapped], most):
        for begin in range(0, len(numbers), ROWS):
            part = numbers[begin : begin + ROWS]
            values, pieces = jax.device_get(
                likeliest(model.params, _batch(model, [gapped[i] for i in part], length))
            )
            for row, number in enumerate(part):
                one = gapped[number]
                texts[number] = vocabulary.decode(
                    _drawn(one, values[row, : len(one.gaps)], pieces[row, : len(one.gaps)]).tolist()
                )
    return texts


def _batch(model: Model, texts: Sequence[_Gapped], length: int) -> dict[str, np.ndarray]:
    vocabulary = model.vocabulary
    whole = [
        np.concatenate([[vocabulary.cls_id], one.ids, [vocabulary.sep_id]]).astype(np.int32)
        for one in texts
    ]
    return masked_batch(whole, [one.gaps + 1 for one in texts], length, ROWS)


def _drawn(one: _Gapped, logits: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """The ids with a piece in each gap, drawn by its probability (Gumbel's maximum)."""
    counters = np.arange(logits.size).reshape(logits.shape)
    uniform = random.uniform(random.bits(random.key(one.key, _PIECES), counters))
    noise = -np.log(-np.log(uniform + 1e-12) + 1e-12)
    chosen = np.argmax(logits.astype(np.float64) + noise, axis=-1)
    filled = one.ids.copy()
    filled[one.gaps] = np.take_along_axis(pieces, chosen[:, None], 1)[:, 0]
    return filled
