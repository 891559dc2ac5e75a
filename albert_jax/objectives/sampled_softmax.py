"""The masked-language objective without the logits of the whole vocabulary.

With 30,000 tokens the logits cost a small model as much as its encoder. Here the softmax of a step
is over `size` tokens: the most frequent half of them always, and the other half drawn from the
rest of the vocabulary, each with the weight of those that it stands for (importance sampling:
Bengio and Senécal 2003; sampled softmax: Jean et al. 2015, arXiv 1412.2007). The rest is cut into
as many parts of neighbors in frequency, and one token of each is drawn, so that the estimate is
less noisy. All masked tokens of a batch share the draw. The label's own logit is always exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.batches.batch import SOFTMAX_SEED
from albert_jax.model import heads, layers
from albert_jax.objectives.loss_terms import LossTerm, LossTerms
from albert_jax.objectives.masked_lm import SMOOTHING

_IMPOSSIBLE = -1e9
"""The logit of a token that is left out."""


def sampled_masked_lm(
    params: Mapping[str, Any],
    model: ModelConfig,
    states: jax.Array,
    batch: Mapping[str, jax.Array],
    *,
    size: int,
    by_frequency: np.ndarray,
) -> LossTerms:
    """The term "mlm" and the sum "mlm_correct" as `masked_lm` has them, estimated from a draw.

    `states` [B, P, H] are the hidden states at mlm_positions. The column softmax_seed [B], the same
    in all rows, decides the draw of `size` tokens. `by_frequency` [V] lists all token ids, the most
    frequent one first. A label counts as correct if it has the largest logit of those drawn.
    """
    frequent, rest = np.split(by_frequency.astype(np.int32), [size - size // 2])
    drawn = draw(batch[SOFTMAX_SEED][0], jnp.asarray(rest), max(1, size // 2))
    ids = jnp.concatenate([jnp.asarray(frequent), drawn])
    log_weights = np.zeros(len(ids), np.float32)
    log_weights[len(frequent) :] = np.log(len(rest) / len(drawn))
    head = layers.bind(heads.MlmHead, model, params["mlm_head"])
    transformed = head.transform(states)
    table = params["embeddings"]["word_embeddings"]["embedding"]
    bias, labels = params["mlm_head"]["bias"], batch["mlm_labels"]

    def logits(pattern: str, ids: jax.Array) -> jax.Array:
        vectors = table[ids].astype(transformed.dtype)
        products = jnp.einsum(pattern, transformed, vectors, preferred_element_type=jnp.float32)
        return products + bias[ids]

    label_logits = logits("bpe,bpe->bp", labels)
    others = jnp.where(ids == labels[..., None], _IMPOSSIBLE, logits("bpe,ce->bpc", ids))
    total = jnp.logaddexp(jax.nn.logsumexp(others + log_weights, axis=-1), label_logits)
    weights = batch["mlm_weights"]
    term = LossTerm(jnp.sum(weights * (total - label_logits)), "mlm_weights", SMOOTHING)
    correct = jnp.sum(weights * (label_logits >= jnp.max(others, axis=-1)))
    return LossTerms({"mlm": term}, {"mlm_correct": correct})


def draw(seed: jax.Array, ids: jax.Array, count: int) -> jax.Array:
    """One id, int32 [count], of each of `count` equal stretches of the ids."""
    key = jax.random.key(seed, impl="threefry2x32")
    places = (jnp.arange(count) + jax.random.uniform(key, (count,))) * (len(ids) / count)
    return ids[jnp.minimum(places.astype(jnp.int32), len(ids) - 1)]
