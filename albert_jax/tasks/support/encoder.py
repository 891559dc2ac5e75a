"""The encoder as tasks use it, and the dense layers that their heads are made of.

A head is a nested dict of float32 arrays that stands under "head" beside the encoder's
parameters; kernels are [inputs, outputs].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from albert_jax import tree
from albert_jax.config import ComputeConfig, ModelConfig
from albert_jax.model import albert
from albert_jax.model.albert import Batch
from albert_jax.model.attention import XLA, Backend
from albert_jax.model.dropout import HEAD, drop
from albert_jax.model.init import init_leaf
from albert_jax.tasks.support.rows import INPUTS
from albert_jax.tasks.task import AnyTask

Params = Mapping[str, Any]
Pooling = Literal["cls", "mean"]


@dataclass(frozen=True)
class Encoder:
    """The encoder of a model with its numerics. B rows, S tokens, H hidden size."""

    model: ModelConfig
    compute: ComputeConfig
    backend: Backend = XLA
    params: Params = field(default_factory=dict)
    """Parameters of the encoder and of the task's head."""
    dropout: jax.Array | None = None
    """The rows' dropout keys [B], or None for no dropout."""
    num_layers: int | None = None
    """Depth; None is the model's own."""

    def bind(
        self, params: Params, dropout: jax.Array | None = None, num_layers: int | None = None
    ) -> Encoder:
        """The encoder with these parameters, at this depth."""
        return replace(self, params=params, dropout=dropout, num_layers=num_layers)

    def hidden_states(self, batch: Batch) -> jax.Array:
        """Hidden states [B, S, H]."""
        return albert.encode(self.params, self.model, batch, **self._settings())

    def all_states(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Hidden states [B, S, H], and those after every layer [layers x inner, B, S, H]."""
        return albert.encode_all_layers(self.params, self.model, batch, **self._settings())

    def _settings(self) -> dict[str, Any]:
        names = ("compute", "num_layers", "dropout", "backend")
        return {name: getattr(self, name) for name in names}

    def pool(self, hidden: jax.Array, batch: Batch, pooling: Pooling) -> jax.Array:
        """One vector per row [B, H]: the pooled [CLS], or the mean of the real tokens."""
        if pooling == "mean":
            real = (batch["segment_ids"] > 0).astype(jnp.float32)[..., None]
            total = jnp.sum(hidden.astype(jnp.float32) * real, axis=1)
            return total / jnp.maximum(jnp.sum(real, axis=1), 1.0)
        return albert.pooler_output(self.params, self.model, hidden, batch)[:, 0]

    def classifier(self, x: jax.Array, rate: float) -> jax.Array:
        """Float32 outputs of the dense layer head/classifier after dropout."""
        x = drop(x, self.dropout, rate, HEAD)
        return dense(self.params["head"]["classifier"], x).astype(jnp.float32)

    def mlm_logits(self, hidden: jax.Array, positions: jax.Array) -> jax.Array:
        """Float32 logits over the vocabulary [B, P, V] at the positions [B, P]."""
        return albert.mlm_logits(self.params, self.model, hidden, positions)

    def flattened(self, batch: Batch) -> tuple[Encoder, dict[str, jax.Array]]:
        """Encoder and inputs for the sequences of grouped rows [B, G, S] as rows [B x G, S].

        Each sequence has a dropout key of its own.
        """
        keys = self.dropout
        if keys is not None:
            fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
            keys = fold(keys, jnp.arange(batch["input_ids"].shape[1])).reshape(-1)
        return replace(self, dropout=keys), flatten_groups(batch)


def flatten_groups(batch: Batch) -> dict[str, jax.Array]:
    """The inputs of grouped rows [B, G, S] as plain rows [B x G, S]."""
    return {name: batch[name].reshape(-1, batch[name].shape[-1]) for name in INPUTS}


def dense_shapes(inputs: int, outputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Shapes of a dense layer's parameters."""
    return {"kernel": (inputs, outputs)} | ({"bias": (outputs,)} if bias else {})


def dense(layer: Params, x: jax.Array) -> jax.Array:
    """x @ kernel + bias in the type of x."""
    return x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype)


def init_head(shapes: Mapping[str, Any], seed: int, std: float) -> dict[str, Any]:
    """New parameters of these shapes, which stand under "head"; see model/init.py."""
    flat = tree.flatten(shapes)
    return tree.unflatten(
        {path: init_leaf(f"head/{path}", shape, std, seed) for path, shape in flat.items()}
    )


def abstract_params(task: AnyTask, model: ModelConfig) -> dict[str, Any]:
    """Shapes of all parameters that a task trains, as jax.ShapeDtypeStruct."""
    pretrained = albert.abstract_params(model)
    head = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
        task.head_shapes(model.hidden_size),
        is_leaf=lambda node: isinstance(node, tuple),
    )
    return task_params(task, pretrained, head)


def task_params(task: AnyTask, pretrained: Params, head: Params) -> dict[str, Any]:
    """The pretrained modules that a task uses, with its head, if it has one."""
    names = ("embeddings", "encoder", *task.pretrained_modules())
    return {name: pretrained[name] for name in names} | ({"head": head} if head else {})
