"""ALBERT as pure functions of its parameters: embeddings, encoder and pretraining heads.

Parameters are a nested dict of float32 arrays. Every leaf under "encoder" has a leading axis with
one entry per parameter set, because the layers share parameters (sharing.py). The encoder scans
over its blocks, or writes them out one after the other.

Shapes: B rows, S tokens, P masked positions, K sequences of a row, V vocabulary, H hidden size,
N attention heads. A block is an attention and a feed-forward sublayer; a layer consists of
`inner_group_num` blocks, usually one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.errors import ConfigError
from albert_jax.model import attention as attention_backends
from albert_jax.model import heads, layers, sharing
from albert_jax.model.attention import XLA, Backend
from albert_jax.model.dropout import LayerDropout
from albert_jax.model.sharing import Params, SharedParams

FLOAT32 = ComputeConfig(dtype="float32", attention="xla")
"""Float32 throughout (on TPUs and GPUs with jax_default_matmul_precision = "highest" only)."""
Batch = Mapping[str, jax.Array]
"""Arrays of a batch; the first axis of each is B."""
Capture = Callable[[jax.Array, jax.Array], Any]
"""Called after each block with its input and output [B, S, H]; returns the arrays to record."""
Block = Callable[..., jax.Array]
"""(hidden states, attention parameters, feed-forward parameters, number of the block) to hidden
states [B, S, H]; with positions [B, P] as a fifth argument to those at the positions, [B, P, H]."""


def abstract_params(config: ModelConfig, with_heads: bool = True) -> dict[str, Any]:
    """Shapes of all parameters, with or without the pretraining heads; nothing is allocated."""

    def stacked(part: Callable[[ModelConfig], Any], count: int) -> dict[str, Any]:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype),
            layers.param_shapes(part, config),
        )

    attention_sets, ffn_sets = sharing.sets(config)
    params = {
        "embeddings": layers.param_shapes(layers.Embeddings, config),
        "encoder": {
            "attention": stacked(layers.Attention, attention_sets),
            "ffn": stacked(layers.FeedForward, ffn_sets),
        },
        "pooler": layers.param_shapes(heads.Pooler, config),
    }
    if with_heads:
        params["mlm_head"] = layers.param_shapes(heads.MlmHead, config)
        params["sop_head"] = layers.param_shapes(heads.SopHead, config)
        if config.word_vocab_size:
            params["word_head"] = layers.param_shapes(heads.WordHead, config)
    return params


def embed(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig = FLOAT32,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """Embeddings of input_ids, positions and token_type_ids -> [B, S, H].

    Raises ConfigError for rows that are longer than the table of positions, where JAX would read
    its last entry again and again.
    """
    length, most = batch["input_ids"].shape[-1], config.max_position_embeddings
    if isinstance(length, int) and length > most:  # An export has a symbol for the length.
        raise ConfigError(
            f"rows of {length} tokens, but the model has {most} positions: make rows of at most "
            f"{most}"
        )
    embeddings = layers.bind(layers.Embeddings, config, params["embeddings"])
    ids, positions, types = batch["input_ids"], batch["positions"], batch["token_type_ids"]
    dtype = jnp.dtype(compute.dtype)
    return embeddings(ids, positions, types, _dropout(config, dropout), dtype)


def encode(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig = FLOAT32,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    backend: Backend = XLA,
    positions: jax.Array | None = None,
) -> jax.Array:
    """Hidden states [B, S, H] of rows, or those at int32 positions [B, P] alone, [B, P, H].

    They are in the compute type. The batch holds input_ids, positions, token_type_ids and
    segment_ids, int32 [B, S]. `num_layers` layers are applied (None: num_hidden_layers). `dropout`
    are the rows' keys [B]; None switches it off. With `positions`, the last of unrolled layers
    computes only keys and values at all others. Raises ConfigError for rows that are longer than
    the table of positions.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file", "is found"], length=8)
    >>> encode(model.params, model.config, batch).shape
    (2, 8, 16)
    """
    return encode_all_layers(
        params, config, batch, compute=compute, num_layers=num_layers, dropout=dropout,
        backend=backend, capture=None, positions=positions,
    )[0]  # fmt: skip


def encode_all_layers(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig = FLOAT32,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    backend: Backend = XLA,
    capture: Capture | None = lambda before, after: after,
    positions: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Like `encode`, together with what `capture` returns after each block, stacked.

    By default that is the output of every block, [blocks, B, S, H].
    """
    x = embed(params, config, batch, compute=compute, dropout=dropout)
    run = _rematerialized(_block(config, batch["segment_ids"], dropout, backend), compute)
    attention, ffn = _shared_params(params, config, num_layers)
    blocks = len(attention.set_of_block)

    if compute.unroll is True:
        # Dropout masks belong to the places of a row, so that they ask for the whole row.
        rates = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        whole = capture or (dropout is not None and max(rates) > 0)
        attention_sets, ffn_sets = attention.unstacked(), ffn.unstacked()
        records = []
        for block in range(blocks):
            before, own_attention = x, attention_sets[attention.set_of_block[block]]
            at = positions if block == blocks - 1 and not whole else None
            x = run(x, own_attention, ffn_sets[ffn.set_of_block[block]], block, at)
            records.append(capture(before, x) if capture else None)
        if positions is not None and whole:
            x = layers.gather_positions(x, positions)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)

    def step(x: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
        block, own_attention, own_ffn = inputs
        after = run(x, shared_attention or own_attention, shared_ffn or own_ffn, block)
        return after, capture(x, after) if capture else None

    # A set that serves all blocks is closed over; otherwise the blocks' sets are scanned.
    shared_attention, shared_ffn = attention.shared(), ffn.shared()
    numbers = jnp.arange(blocks, dtype=jnp.int32)
    x, records = jax.lax.scan(step, x, (numbers, attention.scanned(), ffn.scanned()))
    return (x if positions is None else layers.gather_positions(x, positions)), records


def apply_layer(
    params: Params,
    config: ModelConfig,
    x: jax.Array,
    segment_ids: jax.Array,
    layer: jax.Array | int,
    *,
    num_layers: int | None = None,
    backend: Backend = XLA,
) -> jax.Array:
    """Layer number `layer` of `num_layers` alone, without dropout: [B, S, H] -> [B, S, H].

    `embed` followed by the layers 0, 1, ... equals `encode`. `layer` may be traced, so that one
    program serves all layers.
    """
    attention, ffn = _shared_params(params, config, num_layers)
    run = _block(config, segment_ids, None, backend)
    for inner in range(config.inner_group_num):
        block = layer * config.inner_group_num + inner
        x = run(x, attention.of_block(block), ffn.of_block(block), block)
    return x


def attention_probabilities(
    params: Params,
    config: ModelConfig,
    inputs: jax.Array,
    segment_ids: jax.Array,
    *,
    num_layers: int | None = None,
) -> jax.Array:
    """Attention probabilities of the first n blocks, float32 [n, B, N, S, S].

    `inputs` [n, B, S, H] are the hidden states that enter these blocks.
    """
    sets, _ = _shared_params(params, config, num_layers)
    mask = attention_backends.same_segment(segment_ids)
    probabilities = []
    for block, x in enumerate(inputs):
        attention = layers.bind(layers.Attention, config, sets.of_block(block))
        query, key, _ = attention.project(x)
        probabilities.append(attention_backends.probabilities(query, key, mask))
    return jnp.stack(probabilities)


def pooler_output(
    params: Params, config: ModelConfig, hidden: jax.Array, batch: Batch
) -> jax.Array:
    """The pooler's output [B, K, H] at cls_positions [B, K], which classifiers read.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file", "is found"], length=8)
    >>> hidden = encode(model.params, model.config, batch)
    >>> pooler_output(model.params, model.config, hidden, batch).shape
    (2, 1, 16)
    """
    return apply_pooler(params, config, layers.gather_positions(hidden, batch["cls_positions"]))


def apply_pooler(params: Params, config: ModelConfig, states: jax.Array) -> jax.Array:
    """The pooler's output [..., H] of the hidden states [..., H] at [CLS] tokens."""
    return layers.bind(heads.Pooler, config, params["pooler"])(states)


def mlm_logits(
    params: Params,
    config: ModelConfig,
    hidden: jax.Array,
    positions: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Float32 logits over the vocabulary [B, P, V] at the int32 positions [B, P] only.

    Without `positions`, `hidden` [B, P, H] is what `encode` returned for some.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], length=8)
    >>> hidden = encode(model.params, model.config, batch)
    >>> mlm_logits(model.params, model.config, hidden, np.array([[1, 2]])).shape
    (1, 2, 64)
    """
    head = layers.bind(heads.MlmHead, config, params["mlm_head"])
    word_embeddings = params["embeddings"]["word_embeddings"]["embedding"]
    states = hidden if positions is None else layers.gather_positions(hidden, positions)
    return head(states, word_embeddings)


def sop_logits(params: Params, config: ModelConfig, states: jax.Array) -> jax.Array:
    """Float32 logits [B, K, 2] of the original sentence order (0) and the swapped one (1).

    `states` [B, K, H] are those of `pooler_output`.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], ["is not found"], length=12)
    >>> hidden = encode(model.params, model.config, batch)
    >>> states = pooler_output(model.params, model.config, hidden, batch)
    >>> sop_logits(model.params, model.config, states).shape
    (1, 1, 2)
    """
    head = layers.bind(heads.SopHead, config, params["sop_head"])
    return head(states).astype(jnp.float32)


def _dropout(config: ModelConfig, keys: jax.Array | None) -> LayerDropout:
    return LayerDropout(keys, config.hidden_dropout_prob, config.attention_probs_dropout_prob)


def _shared_params(
    params: Params, config: ModelConfig, num_layers: int | None
) -> tuple[SharedParams, SharedParams]:
    """The encoder's parameters of the attention and of the feed-forward sublayers."""
    table, encoder = sharing.table(config, num_layers), params["encoder"]
    attention = SharedParams(encoder["attention"], table.attention)
    return attention, SharedParams(encoder["ffn"], table.ffn)


def _block(
    config: ModelConfig, segment_ids: jax.Array, dropout_keys: jax.Array | None, backend: Backend
) -> Block:
    """The function that applies one block to rows with these segment ids [B, S]."""
    backend = backend.at(segment_ids.shape[1])
    mask = backend.prepare(segment_ids)
    dropout = _dropout(config, dropout_keys)

    def run(
        x: jax.Array,
        attention_params: Params,
        ffn_params: Params,
        block: jax.Array | int,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        attention = layers.bind(layers.Attention, config, attention_params)
        ffn = layers.bind(layers.FeedForward, config, ffn_params)
        return ffn(attention(x, mask, backend, dropout.at(block), positions), dropout.at(block))

    return run


def _rematerialized(run: Block, compute: ComputeConfig) -> Block:
    """The block with less memory for the backward pass, as compute.remat says."""
    if compute.remat == "none":
        return run
    policies = jax.checkpoint_policies
    policy = policies.nothing_saveable
    if compute.remat == "dots":
        policy = policies.save_only_these_names(layers.SAVED)
    # Outside a loop the compiler would merge the recomputation with the first computation and save
    # nothing; inside one it cannot, and the barrier costs time.
    return jax.checkpoint(run, prevent_cse=compute.unroll is True, policy=policy)
