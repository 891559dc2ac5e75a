"""The functional core of ALBERT: pure functions of (parameters, config, rows).

Parameters are a nested dict of float32 arrays; every leaf under "encoder" has a leading axis n,
one entry per parameter set. The encoder gathers the set of each pass from a static table
(sharing.py) and scans over the passes, or writes them out.

Legend: B rows, S tokens, P masked places, K pairs of a row, V vocabulary, E embedding, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import attention as attentions
from albert_jax.model import layers, sharing
from albert_jax.model.attention import Backend
from albert_jax.model.dropout import PassDropout

EXACT = ComputeConfig(dtype="float32")
"""Float32 throughout; pass another ComputeConfig (bfloat16, remat) for speed or memory."""
Params = Mapping[str, Any]
"""Nested dict of arrays."""
Batch = Mapping[str, jax.Array]
"""Columns of rows; the first axis of each is B."""
Watch = Callable[[jax.Array, jax.Array], Any]
"""What is taken down of a pass: (its input [B, S, H], its output) to arrays."""


@lru_cache(maxsize=64)
def _definitions(config: ModelConfig) -> dict[str, tuple[nnx.GraphDef, dict[str, Any]]]:
    """Per part: its NNX definition and the shapes of one parameter set (nothing is allocated)."""
    hidden = config.hidden_size
    parts = {
        "embeddings": lambda: layers.Embeddings(config),
        "attention": lambda: layers.Attention(config),
        "ffn": lambda: layers.FeedForward(config),
        "pooler": lambda: layers.Dense(hidden, hidden),
        "mlm_head": lambda: layers.MlmHead(config),
        "sop_head": lambda: layers.Dense(hidden, 2),
    }
    found = {}
    for name, build in parts.items():
        definition, state = nnx.split(nnx.eval_shape(build))
        found[name] = (definition, nnx.to_pure_dict(state))
    return found


def abstract_params(config: ModelConfig, heads: bool = True) -> dict[str, Any]:
    """Shapes of all parameters as a nested dict of jax.ShapeDtypeStruct; nothing is allocated.

    Without `heads`: embeddings, encoder and pooler only.
    """
    shapes = {name: shape for name, (_, shape) in _definitions(config).items()}

    def stacked(shape: dict[str, Any], count: int) -> dict[str, Any]:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), shape
        )

    attention_sets, ffn_sets = sharing.sets(config)
    params = {
        "embeddings": shapes["embeddings"],
        "encoder": {
            "attention": stacked(shapes["attention"], attention_sets),
            "ffn": stacked(shapes["ffn"], ffn_sets),
        },
        "pooler": shapes["pooler"],
    }
    if heads:
        params |= {"mlm_head": shapes["mlm_head"], "sop_head": shapes["sop_head"]}
    return params


def _part(config: ModelConfig, name: str, params: Params) -> Any:
    """The module `name` with these parameters."""
    return nnx.merge(_definitions(config)[name][0], params)


def _dropout(config: ModelConfig, keys: jax.Array | None) -> PassDropout:
    return PassDropout(keys, config.hidden_dropout_prob, config.attention_probs_dropout_prob)


def embed(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """Embeddings of input_ids, positions and token_type_ids [B, S] -> [B, S, H]."""
    return _part(config, "embeddings", params["embeddings"])(
        batch["input_ids"],
        batch["positions"],
        batch["token_type_ids"],
        _dropout(config, dropout),
        jnp.dtype(compute.dtype),
    )


def encode(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig = EXACT,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    backend: Backend = attentions.XLA,
) -> jax.Array:
    """Hidden states [B, S, H] of rows, in the compute type.

    Args:
      params: The model's parameters.
      config: Their structure.
      batch: input_ids, positions, token_type_ids and segment_ids, int32 [B, S].
      compute: Numerics.
      num_layers: How many layers are applied; None is num_hidden_layers.
      dropout: The rows' keys [B]; None switches dropout off.
      backend: The implementation of attention.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file", "is found"], length=8)
    >>> encode(model.params, model.config, batch).shape
    (2, 8, 16)
    """
    x = embed(params, config, batch, compute=compute, dropout=dropout)
    return _passes(params, config, x, batch, compute, num_layers, dropout, backend, None)[0]


def encode_all_layers(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    *,
    compute: ComputeConfig,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    backend: Backend = attentions.XLA,
) -> tuple[jax.Array, jax.Array]:
    """Like `encode`, with the output of every pass: ([B, S, H], [passes x inner, B, S, H])."""
    return encode_with_capture(
        params,
        config,
        batch,
        lambda before, after: after,
        compute=compute,
        num_layers=num_layers,
        dropout=dropout,
        backend=backend,
    )


def encode_with_capture(
    params: Params,
    config: ModelConfig,
    batch: Batch,
    watch: Watch,
    *,
    compute: ComputeConfig,
    num_layers: int | None = None,
    dropout: jax.Array | None = None,
    backend: Backend = attentions.XLA,
) -> tuple[jax.Array, Any]:
    """Like `encode`, with what `watch` takes down of every pass: arrays [passes x inner, ...]."""
    x = embed(params, config, batch, compute=compute, dropout=dropout)
    return _passes(params, config, x, batch, compute, num_layers, dropout, backend, watch)


def _passes(
    params: Params,
    config: ModelConfig,
    x: jax.Array,
    batch: Batch,
    compute: ComputeConfig,
    layers_: int | None,
    keys: jax.Array | None,
    backend: Backend,
    watch: Watch | None,
) -> tuple[jax.Array, Any]:
    table = sharing.table(config, layers_)
    backend = backend.at(x.shape[1])
    mask = backend.prepare(batch["segment_ids"])
    dropout = _dropout(config, keys)

    def body(x: jax.Array, attention: Params, ffn: Params, number: jax.Array | int) -> jax.Array:
        here = dropout.at(number)
        x = _part(config, "attention", attention)(x, mask, backend, here)
        return _part(config, "ffn", ffn)(x, here)

    if compute.remat != "none":
        body = jax.checkpoint(
            body,
            # Outside a loop the compiler would merge the recomputation with the first
            # computation and save nothing; inside one it cannot, and the barrier costs.
            prevent_cse=compute.unroll,
            policy=(
                jax.checkpoint_policies.save_only_these_names(layers.SAVED)
                if compute.remat == "dots"
                else jax.checkpoint_policies.nothing_saveable
            ),
        )

    encoder = params["encoder"]
    if compute.unroll:
        attention, ffn = _sets(encoder["attention"]), _sets(encoder["ffn"])
        seen = []
        for number, (a, f) in enumerate(zip(table.attention, table.ffn, strict=True)):
            before, x = x, body(x, attention[a], ffn[f], number)
            seen.append(watch(before, x) if watch else None)
        return x, jax.tree.map(lambda *each: jnp.stack(each), *seen)

    fixed, riding = {}, {"number": jnp.arange(len(table), dtype=jnp.int32)}
    for name, places in (("attention", table.attention), ("ffn", table.ffn)):
        count = jax.tree.leaves(encoder[name])[0].shape[0]
        if count == 1:
            fixed[name] = _sets(encoder[name])[0]
        elif places == tuple(range(count)):
            riding[name] = encoder[name]
        else:
            order = jnp.asarray(places, jnp.int32)
            riding[name] = jax.tree.map(lambda leaf, order=order: leaf[order], encoder[name])

    def step(x: jax.Array, each: dict[str, Any]) -> tuple[jax.Array, Any]:
        chosen = fixed | each
        after = body(x, chosen["attention"], chosen["ffn"], chosen["number"])
        return after, watch(x, after) if watch else None

    return jax.lax.scan(step, x, riding)


def apply_layer(
    params: Params,
    config: ModelConfig,
    x: jax.Array,
    segment_ids: jax.Array,
    layer: jax.Array | int,
    *,
    num_layers: int | None = None,
    backend: Backend = attentions.XLA,
) -> jax.Array:
    """Layer number `layer` of `passes` alone, dropout off: hidden states [B, S, H] -> [B, S, H].

    The layers 0, 1, ... in turn after `embed` are `encode`. `layer` may be traced, so that one
    program serves all of them.
    """
    table = sharing.table(config, num_layers)
    backend = backend.at(x.shape[1])
    mask = backend.prepare(segment_ids)
    off = _dropout(config, None)
    encoder = params["encoder"]
    for block in range(config.inner_group_num):
        number = layer * config.inner_group_num + block
        attention = _set_at(encoder["attention"], table.attention, number)
        x = _part(config, "attention", attention)(x, mask, backend, off)
        x = _part(config, "ffn", _set_at(encoder["ffn"], table.ffn, number))(x, off)
    return x


def _set_at(stacked: Params, places: tuple[int, ...], number: jax.Array | int) -> Params:
    """The parameter set of pass `number`."""
    if jax.tree.leaves(stacked)[0].shape[0] == 1:
        return _sets(stacked)[0]
    chosen = jnp.asarray(places, jnp.int32)[number]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], stacked)


def _sets(stacked: Params) -> list[Params]:
    """The parameter sets of stacked leaves [n, ...], as n trees."""
    count = jax.tree.leaves(stacked)[0].shape[0]
    if count == 1:  # a reshape, where indexing would be a slice and a scatter in its gradient
        return [jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[1:]), stacked)]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]


def attention_probabilities(
    params: Params,
    config: ModelConfig,
    inputs: jax.Array,
    segment_ids: jax.Array,
    *,
    num_layers: int | None = None,
) -> jax.Array:
    """What the first passes look at: their inputs [n, B, S, H] -> float32 [n, B, N, S, S]."""
    places = sharing.table(config, num_layers).attention
    mask, found = attentions.same_segment(segment_ids), []
    for number, x in enumerate(inputs):
        chosen = _set_at(params["encoder"]["attention"], places, number)
        query, key, _ = _part(config, "attention", chosen).split(x)
        found.append(attentions.probabilities(query, key, mask))
    return jnp.stack(found)


def at_places(hidden: jax.Array, places: jax.Array | np.ndarray) -> jax.Array:
    """Hidden states [B, S, H] at int32 places [B, P] -> [B, P, H]."""
    return jnp.take_along_axis(hidden, places[:, :, None], axis=1, mode="clip")


def pooled(
    params: Params, config: ModelConfig, hidden: jax.Array, cls_positions: jax.Array
) -> jax.Array:
    """tanh(dense) of the hidden states at the [CLS] places [B, K] -> [B, K, H]."""
    return jnp.tanh(_part(config, "pooler", params["pooler"])(at_places(hidden, cls_positions)))


def mlm_logits(
    params: Params, config: ModelConfig, hidden: jax.Array, positions: jax.Array | np.ndarray
) -> jax.Array:
    """Float32 logits over the vocabulary [B, P, V] at the int32 positions [B, P] only.

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], length=8)
    >>> hidden = encode(model.params, model.config, batch)
    >>> mlm_logits(model.params, model.config, hidden, np.array([[1, 2]])).shape
    (1, 2, 64)
    """
    table = params["embeddings"]["word_embeddings"]["embedding"]
    head = _part(config, "mlm_head", params["mlm_head"])
    return head(at_places(hidden, positions), table)


def sop_logits(params: Params, config: ModelConfig, pooled_: jax.Array) -> jax.Array:
    """Float32 logits [B, K, 2] of the original sentence order (0) and the swapped one (1).

    >>> model = load(directory)
    >>> batch = rows(model.vocabulary, ["the file"], ["is not found"], length=12)
    >>> hidden = encode(model.params, model.config, batch)
    >>> states = pooled(model.params, model.config, hidden, batch)
    >>> sop_logits(model.params, model.config, states).shape
    (1, 1, 2)
    """
    return _part(config, "sop_head", params["sop_head"])(pooled_).astype(jnp.float32)
