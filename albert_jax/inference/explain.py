"""Hidden states, attention and predictions of a model for one text, layer by layer.

Legend: L layers, S tokens of the text, N heads, H hidden size, C labels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.masked_text import encode_masked
from albert_jax.data.vocabularies.sentencepiece import SPACE
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError
from albert_jax.inference import attributions
from albert_jax.inference.attributions import Attribution
from albert_jax.inference.fill_mask import Candidate, most_probable
from albert_jax.inference.layer_similarity import cosine
from albert_jax.inference.predict import task_of
from albert_jax.inference.words import word_spans
from albert_jax.model import albert
from albert_jax.model.albert import FLOAT32
from albert_jax.model_io.model import Model
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.rows import (
    Batch,
    TokenSequence,
    fitting_length,
    sequence,
    sequence_rows,
)

MAX_TOKENS = 128
"""Longest text that can be drawn."""


@dataclass(frozen=True)
class Layers:
    """States and attention of one text after each layer."""

    batch: Batch
    """The row of the text, without padding."""
    tokens: tuple[str, ...]
    """The tokens as text, special ones included, [S]."""
    states: np.ndarray
    """float32 [L + 1, S, H]: the embeddings, and the output of each layer."""
    attention: np.ndarray
    """float32 [L, N, S, S]: layer, head, the token that attends, the token attended to. A layer of
    several blocks (inner_group_num) has the heads of all of them."""


class Word(NamedTuple):
    """A word, its first token, and the token after its last."""

    text: str
    first: int
    end: int


@dataclass(frozen=True)
class Explanation(Layers):
    """The numbers of one text after each layer."""

    source: str
    """The path that the model was loaded from."""
    text: str
    cosines: np.ndarray
    """float64 [L]: mean cosine of a token's state after the layer to its state before."""
    words: tuple[Word, ...]
    """The words of the text with their tokens, special tokens as words of their own."""
    masked: tuple[tuple[tuple[Candidate, ...], ...], ...]
    """Predictions by [mask][layer][rank]; empty without [MASK] or masked-language head."""
    labels: tuple[str, ...] = ()
    """Labels of a classifier."""
    classes: np.ndarray | None = None
    """float64 [L, C]: probability of each label if the network ended after the layer."""
    attribution: Attribution | None = None
    """Contributions of the tokens to the label of a classifier."""


def explain(
    model: Model, text: str, *, num_layers: int | None = None, top_k: int = 3
) -> Explanation:
    """Looks at a text, or at two with a tab between, in float32.

    Results that need an output head which the model lacks are left empty; `top_k` is the number of
    predictions per mask and layer. Raises DataError for a text that is empty or too long.
    """
    config, params = model.config, model.params
    task = None if model.run_config.task is None else task_of(model)
    if task is not None and task.classifies:
        task.parse_line(text, "the text")  # A model of pairs takes no single text.
    layers = states_and_attention(model, text, num_layers=num_layers)
    # The layers stand in the place of the rows of a batch.
    outputs, count = jnp.asarray(layers.states[1:]), len(layers.attention)
    batch = {name: jnp.repeat(column, count, 0) for name, column in layers.batch.items()}
    positions = np.flatnonzero(layers.batch["input_ids"][0] == model.vocabulary.mask_id)
    masked: list[tuple[tuple[Candidate, ...], ...]] = []
    if "mlm_head" in params and positions.size:
        logits = albert.mlm_logits(
            params, config, outputs, jnp.tile(jnp.asarray(positions), (count, 1))
        )
        masked = [
            tuple(
                tuple(most_probable(row, model.vocabulary, top_k))
                for row in np.asarray(logits[:, mask], np.float64)
            )
            for mask in range(positions.size)
        ]
    labels, classes, attribution = (), None, None
    if task is not None and task.classifies:
        labels = task.output_names
        logits = task.head_logits(Encoder(config, FLOAT32).bind(params), outputs, batch)
        classes = softmax(np.asarray(logits, np.float64), -1)
        attribution = attributions.attribute(model, layers.batch, num_layers=num_layers)
    return Explanation(
        **vars(layers),
        source=model.source,
        text=text,
        cosines=np.asarray(cosine(layers.states[:-1], layers.states[1:]), np.float64).mean(-1),
        words=tuple(_words(model.vocabulary, layers)),
        masked=tuple(masked),
        labels=labels,
        classes=classes,
        attribution=attribution,
    )


def states_and_attention(
    model: Model, text: str, *, num_layers: int | None = None, max_tokens: int = MAX_TOKENS
) -> Layers:
    """States and attention of a text, or of two with a tab between, in float32.

    Raises DataError for a text that is empty or has more than `max_tokens` tokens.
    """
    max_length = min(max_tokens, model.config.max_position_embeddings)
    tokens = _encode(model, text, max_length)
    size = len(tokens.ids)
    padded = sequence_rows([tokens], fitting_length(size, max_length, (16, 32, 64)))
    states, attention = jax.device_get(_program(model.config, num_layers)(model.params, padded))
    return Layers(
        batch=sequence_rows([tokens], size),
        tokens=tuple(_readable(model.vocabulary, int(id)) for id in tokens.ids),
        states=states[:, :size],
        attention=attention[:, :, :size, :size],
    )


@functools.lru_cache(maxsize=8)
def _program(config: ModelConfig, num_layers: int | None) -> Any:
    """The compiled (params, batch of one row) -> (states, attention), one per structure."""

    def forward(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        first = albert.embed(params, config, batch, compute=FLOAT32)
        _, each = albert.encode_all_layers(
            params, config, batch, compute=FLOAT32, num_layers=num_layers
        )
        states = jnp.concatenate([first[None], each])
        attention = albert.attention_probabilities(
            params, config, states[:-1], batch["segment_ids"], num_layers=num_layers
        )
        inner, size = config.inner_group_num, attention.shape[-1]
        heads = attention[:, 0].reshape(-1, inner * config.num_attention_heads, size, size)
        return states[::inner, 0], heads

    return jax.jit(forward)


def _encode(model: Model, text: str, max_length: int) -> TokenSequence:
    """[CLS] text [SEP], or a pair; nothing is truncated."""
    parts = [part.strip() for part in text.split("\t")]
    if not all(parts) or len(parts) > 2:
        raise DataError("the text: give one, or two with a tab between, and none of them empty")
    ids = [encode_masked(part, model.vocabulary) for part in parts]
    if not all(map(len, ids)):
        raise DataError("the text has no tokens of this vocabulary: write another")
    tokens = sequence(model.vocabulary, ids, sum(map(len, ids)) + len(ids) + 1)
    if (size := len(tokens.ids)) > max_length:
        raise DataError(f"the text has {size} tokens; at most {max_length} are shown: shorten it")
    return tokens


def _words(vocabulary: Vocabulary, layers: Layers) -> Iterator[Word]:
    ids = layers.batch["input_ids"][0]
    for first, end in word_spans(vocabulary, ids):
        text = vocabulary.decode(ids[first:end].tolist()).strip()
        yield Word(layers.tokens[first] if end == first + 1 else text, first, end)


def _readable(vocabulary: Vocabulary, id: int) -> str:
    token = vocabulary.id_to_token(id)
    return token.replace(SPACE, " ").strip() or token
