"""Attention backends: several ways to compute attention, each of which states what it can do.

A token sees the tokens of its own segment, and padding (segment 0) sees padding. Each backend
turns the segment ids [B, S] into a mask of its own: `prepare` runs once per batch, before the
layers, and only `attend` of the same backend reads the result.

Shapes: B rows, S tokens, N heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.model.dropout import LayerDropout

HEADS_AXIS = "tensor"
"""Mesh axis over which a fused kernel's heads are split, if a mesh with that axis is in context."""

_MASKED = -1e9


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    `attend(query, key, value, mask, dropout)` takes three arrays [B, N, S, D] and returns another.
    Without `heads_first` all four are [B, S, N, D]; the projections write and read either layout.
    """

    name: str
    prepare: Callable[[jax.Array], Any]
    attend: Callable[[jax.Array, jax.Array, jax.Array, Any, LayerDropout], jax.Array]
    platforms: tuple[str, ...] = ("cpu", "gpu", "tpu")
    attention_dropout: bool = True
    head_sizes: range = range(1, 1 << 30)
    sequence_multiple: int = 1
    heads_first: bool = True
    device_limitation: Callable[[Any, str], str | None] = lambda device, dtype: None
    """(device, compute type) to the reason why the device cannot run this backend, or None."""

    def limitation(self, config: Config, device: Any) -> str | None:
        """Returns the reason why this backend cannot run a config on a jax.Device, or None."""
        model, head = config.model, config.model.head_size
        if device.platform not in self.platforms:
            return f"runs on {' and '.join(self.platforms)}, not on {device.platform}"
        if model.attention_probs_dropout_prob and not self.attention_dropout:
            return "has no attention dropout (model.attention_probs_dropout_prob must be 0)"
        if head not in self.head_sizes:
            sizes = self.head_sizes
            return (
                f"has no heads of size {head} (it takes multiples of {sizes.step} from {sizes[0]} "
                f"to {sizes[-1]})"
            )
        for i, phase in enumerate(config.phases):
            if phase.sequence_length % self.sequence_multiple:
                return (
                    f"needs rows of a multiple of {self.sequence_multiple} tokens "
                    f"(phases.{i}.sequence_length is {phase.sequence_length})"
                )
        return self.device_limitation(device, config.compute.dtype)

    def at(self, length: int) -> Backend:
        """This backend if it takes rows of `length` tokens (which may be shortened), else XLA."""
        return XLA if length % self.sequence_multiple else self


def same_segment(segment_ids: jax.Array) -> jax.Array:
    """The mask of which token sees which: segment ids [B, S] -> bool [B, 1, S, S]."""
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]


def probabilities(query: jax.Array, key: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention probabilities float32 [B, N, S, S] of two [B, N, S, D] and a mask [B, 1, S, S]."""
    # The scale goes to the query: S x D numbers instead of S x S.
    query = query * jnp.asarray(1.0 / math.sqrt(query.shape[-1]), query.dtype)
    return _masked_softmax(_scores(query, key), mask)


@jax.custom_vjp
def _scores(query: jax.Array, key: jax.Array) -> jax.Array:
    """Products of two [B, N, S, D], float32 [B, N, S, S]."""
    return jnp.einsum("bnqd,bnkd->bnqk", query, key, preferred_element_type=jnp.float32)


def _scores_forward(query: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _scores(query, key), (query, key)


def _scores_backward(
    saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    query, key = saved
    gradient = gradient.astype(query.dtype)
    query_gradient = jnp.einsum("bnqk,bnkd->bnqd", gradient, key)
    return query_gradient, _over_queries(gradient, query)


_scores.defvjp(_scores_forward, _scores_backward)


@jax.custom_vjp
def _context(weights: jax.Array, value: jax.Array) -> jax.Array:
    """Weights [B, N, S, S] times values [B, N, S, D], [B, N, S, D]."""
    return jnp.einsum("bnqk,bnkd->bnqd", weights, value)


def _context_forward(
    weights: jax.Array, value: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _context(weights, value), (weights, value)


def _context_backward(
    saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    weights, value = saved
    weights_gradient = jnp.einsum("bnqd,bnkd->bnqk", gradient, value)
    return weights_gradient, _over_queries(weights, gradient)


_context.defvjp(_context_forward, _context_backward)


def _over_queries(weights: jax.Array, x: jax.Array) -> jax.Array:
    """The sum over queries of weights [B, N, Sq, Sk] times x [B, N, Sq, D], [B, N, Sk, D]."""
    # XLA on a CPU computes this product at half the speed of its transposed one. Without the
    # barrier it would transpose the product itself.
    total = jnp.einsum("bnqd,bnqk->bndk", x, weights)
    return jnp.swapaxes(jax.lax.optimization_barrier(total), 2, 3)


@jax.custom_vjp
def _masked_softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax over the last axis of scores [B, N, S, S]."""
    # The backward pass uses the result alone; automatic differentiation would keep two more arrays
    # of its size.
    return jax.nn.softmax(jnp.where(mask, scores, _MASKED), axis=-1)


def _masked_softmax_forward(scores: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    weights = _masked_softmax(scores, mask)
    return weights, weights


def _masked_softmax_backward(weights: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None]:
    # Where the mask is False the weight is 0, and so is the gradient.
    weighted = weights * gradient
    return weighted - weights * jnp.sum(weighted, axis=-1, keepdims=True), None


_masked_softmax.defvjp(_masked_softmax_forward, _masked_softmax_backward)


def _xla_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, dropout: LayerDropout
) -> jax.Array:
    weights = dropout.probabilities(probabilities(query, key, mask).astype(value.dtype))
    return _context(weights, value)


XLA = Backend("xla", same_segment, _xla_attend)
"""Plain matrix products. It runs every config on every platform and is the reference."""


def _cudnn_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, dropout: LayerDropout
) -> jax.Array:
    attend = partial(jax.nn.dot_product_attention, implementation="cudnn")
    return _by_heads(lambda q, k, v, m: attend(q, k, v, mask=m), 2, query, key, value, mask)


def _cudnn_limitation(device: Any, dtype: str) -> str | None:
    if dtype != "bfloat16":
        return f"computes in bfloat16, not in {dtype}"
    capability = str(getattr(device, "compute_capability", "")) or "8.0"
    if not capability.replace(".", "").isdecimal():  # ROCm names an architecture.
        return f"needs an NVIDIA GPU, this one is {capability}"
    if float(capability) < 8.0:
        return f"needs compute capability 8.0 (Ampere), this GPU has {capability}"
    return None


CUDNN = Backend(
    "cudnn",
    same_segment,
    _cudnn_attend,
    platforms=("gpu",),
    attention_dropout=False,
    head_sizes=range(8, 129, 8),
    sequence_multiple=2,
    heads_first=False,
    device_limitation=_cudnn_limitation,
)
"""cuDNN's fused attention. It takes packed rows only as a dense mask."""


def _by_heads(
    kernel: Callable[..., jax.Array],
    axis: int,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
) -> jax.Array:
    """Runs a fused kernel in a region that is manual over the mesh axis of the heads.

    The heads are axis `axis` of query, key and value. The compiler cannot partition a kernel, and
    Mosaic refuses a mesh with an automatic axis even if its size is 1. Without a mesh in context
    the kernel is called directly.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if HEADS_AXIS not in mesh.axis_names:
        return kernel(query, key, value, mask)
    size = mesh.shape[HEADS_AXIS]
    split = HEADS_AXIS if query.shape[axis] % size == 0 else None
    by_head, replicated = PartitionSpec(*[None] * axis, split), PartitionSpec()
    return jax.shard_map(
        kernel,
        in_specs=(by_head, by_head, by_head, replicated),
        out_specs=by_head,
        axis_names={HEADS_AXIS},
        check_vma=False,
    )(query, key, value, mask)


def splash(*, interpret: bool = False) -> Backend:
    """The Pallas splash kernel for TPUs; `interpret` runs it slowly on any platform."""

    def kernel(
        query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array
    ) -> jax.Array:
        from jax.experimental.pallas.ops.tpu.splash_attention import (
            splash_attention_kernel,
            splash_attention_mask,
        )

        heads, length = query.shape[1:3]
        block = next(size for size in (512, 384, 256, 128) if length % size == 0)
        passes = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
        sizes: dict[str, Any] = {f"block_{name}": block for name in passes}
        everywhere = splash_attention_mask.FullMask((length, length))
        attend = splash_attention_kernel.make_splash_mha(
            splash_attention_mask.MultiHeadMask([everywhere] * heads),
            block_sizes=splash_attention_kernel.BlockSizes(**sizes),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        scale = jnp.asarray(1.0 / math.sqrt(query.shape[-1]), query.dtype)

        def row(q: jax.Array, k: jax.Array, v: jax.Array, ids: jax.Array) -> Any:
            return attend(q, k, v, splash_attention_kernel.SegmentIds(ids, ids))

        return jax.vmap(row)(query * scale, key, value, segment_ids)

    def attend(
        query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, dropout: LayerDropout
    ) -> jax.Array:
        return _by_heads(kernel, 1, query, key, value, mask)

    return Backend(
        "splash",
        lambda segment_ids: segment_ids,
        attend,
        platforms=("tpu",),
        attention_dropout=False,
        head_sizes=range(64, 1 << 30, 64),
        sequence_multiple=128,
        device_limitation=_splash_limitation,
    )


def _splash_limitation(device: Any, dtype: str) -> str | None:
    kind = device.device_kind
    if dtype == "bfloat16" and kind in ("TPU v2", "TPU v3"):
        return f"has no matrix product in bfloat16 on a {kind}"
    return None


BACKENDS = (splash(), CUDNN, XLA)
"""All backends, the fastest first."""


def fastest(config: Config, device: Any) -> Backend:
    """The fastest backend that can run a config on a jax.Device, whichever the config names."""
    return next(backend for backend in BACKENDS if backend.limitation(config, device) is None)


def choose(config: Config, device: Any) -> Backend:
    """The backend that the config names, or the fastest that can run it for "auto".

    Raises ConfigError if the named backend cannot run the config on this jax.Device.
    """
    if config.compute.attention == "auto":
        return fastest(config, device)
    backend = next(backend for backend in BACKENDS if backend.name == config.compute.attention)
    reason = backend.limitation(config, device)
    if reason:
        raise ConfigError(
            f"compute.attention {backend.name!r} {reason}: use 'auto', which falls back to 'xla'"
        )
    return backend
