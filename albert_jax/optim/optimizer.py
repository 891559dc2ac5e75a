"""The optimizers as chains of optax transformations.

Which parameter gets which treatment is decided by its name and never by its rank. Leaves of the
encoder are stacked [n, ...]: axis 0 lists n parameters of the unstacked model, and each of them
is treated by itself. Nothing outside this module knows the structure of an optimizer's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from albert_jax.config import OptimizerConfig
from albert_jax.tree import path_of

MUON_RMS = 0.1
"""Root mean square of Muon's direction at which one learning rate serves it and LAMB, measured on
small models. (Beside AdamW it is 0.2: Liu et al. 2025, arXiv 2502.16982.)"""


def make_optimizer(
    config: OptimizerConfig, learning_rate: Any = 0.0
) -> optax.GradientTransformation:
    """LAMB (You et al. 2019, arXiv 1904.00962) or AdamW as in the original, or Muon.

    AdamW has decoupled weight decay, eps outside the square root, and (unless the config asks) no
    bias correction (the original's optimization.py). LAMB scales its direction by the trust ratio
    of each parameter (lamb_optimizer.py). Muon (Jordan 2024) takes the nearest orthogonal matrix to
    the momentum as the direction of each weight matrix (`is_matrix`), at MUON_RMS and with
    decoupled weight decay (a trust ratio lets them grow without bound). All else has LAMB.
    """
    rule = optax.scale_by_adam if config.bias_correction else scale_by_uncorrected_adam
    adam = rule(config.b1, config.b2, config.eps)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    uniform = optax.scale_by_learning_rate(learning_rate)
    if config.name == "adamw":
        return optax.chain(adam, decay, uniform)
    lamb = optax.chain(adam, decay, scale_by_layerwise_learning_rate(learning_rate))
    if config.name == "lamb":
        return lamb
    orthogonal = optax.contrib.scale_by_muon(weight_dimension_numbers=_last_two_axes)
    # The entries of an orthogonal matrix have a root mean square of 1 / sqrt(max(in, out)).
    sized = optax.stateless_with_tree_map(lambda u, _: MUON_RMS * max(jnp.shape(u)[-2:]) ** 0.5 * u)
    muon = optax.chain(orthogonal, sized, decay, uniform)
    return optax.partition({"muon": muon, "lamb": lamb}, _algorithms)


def map_state(
    optimizer: optax.GradientTransformation,
    function: Callable[..., Any],
    state: Any,
    *trees: Any,
    others: Callable[[Any], Any],
) -> Any:
    """Maps an optimizer's state, leaf by leaf.

    `function` gets each leaf that belongs to a parameter, and the leaves of `trees` (which have
    the structure of the parameters) that belong to the same parameter; `others` gets all else.
    """

    def apply(leaf: Any, *corresponding: Any) -> Any:
        # optax.partition leaves this mark where a parameter has no state of one kind.
        return leaf if isinstance(leaf, optax.MaskedNode) else function(leaf, *corresponding)

    return optax.tree_utils.tree_map_params(
        optimizer,
        apply,
        state,
        *trees,
        transform_non_params=others,
        is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode),
    )


class MomentsState(NamedTuple):
    """Moving averages of the gradient and of its square, each like the parameters."""

    mu: Any
    nu: Any


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """mu / (sqrt(nu) + eps) without bias correction."""

    def init(params: Any) -> MomentsState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return MomentsState(zeros, zeros)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MomentsState]:
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1.0 - b2) * jnp.square(g), state.nu, updates)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, MomentsState(mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_layerwise_learning_rate(learning_rate: Any) -> optax.GradientTransformation:
    """Scales each parameter of the unstacked model by -learning_rate * |w| / |u|.

    A stacked leaf has one trust ratio |w| / |u| per entry of axis 0, so stacking changes no number.
    Biases and LayerNorm parameters have no ratio.
    """

    def scale(keys: tuple[Any, ...], u: jax.Array, w: jax.Array) -> jax.Array:
        path = path_of(keys)
        ratio = 1.0 if is_excluded(path) else trust_ratio(w, u, per_entry=is_stacked(path))
        # The original multiplies in this order, which decides the rounding.
        return -learning_rate * ratio * u

    def update(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(scale, updates, params)

    return optax.stateless(update)


def trust_ratio(w: jax.Array, u: jax.Array, *, per_entry: bool) -> jax.Array:
    """|w| / |u|, or 1 where either is 0: one scalar, or [n, 1, ...] per entry of axis 0."""
    axes = tuple(range(1 if per_entry else 0, w.ndim))
    w_norm = jnp.sqrt(jnp.sum(jnp.square(w), axis=axes, keepdims=per_entry))
    u_norm = jnp.sqrt(jnp.sum(jnp.square(u), axis=axes, keepdims=per_entry))
    usable = (w_norm > 0) & (u_norm > 0)
    return jnp.where(usable, w_norm / jnp.where(usable, u_norm, 1.0), 1.0)


def decayed(params: Any) -> Any:
    """The mask of the parameters that weight decay applies to, as a tree of booleans."""
    return jax.tree_util.tree_map_with_path(lambda keys, _: not is_excluded(path_of(keys)), params)


def is_matrix(path: str) -> bool:
    """Returns whether Muon treats a parameter: the weight matrices but those of classifiers."""
    parts = path.split("/")
    return parts[-1] == "kernel" and parts[0] in ("embeddings", "encoder", "mlm_head", "pooler")


def _algorithms(params: Any) -> Any:
    """The tree of the names "muon" and "lamb", by which optax.partition routes the parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: "muon" if is_matrix(path_of(keys)) else "lamb", params
    )


def _last_two_axes(params: Any) -> Any:
    """The axes of each matrix [..., in, out]; axes before them list matrices of their own."""
    return jax.tree.map(
        lambda w: optax.contrib.MuonDimensionNumbers(w.ndim - 2, w.ndim - 1), params
    )


def is_excluded(path: str) -> bool:
    """Returns whether a parameter is a bias or of a LayerNorm: no decay and no ratio."""
    parts = path.split("/")
    return parts[-1] == "bias" or "layer_norm" in parts


def is_stacked(path: str) -> bool:
    """Returns whether axis 0 of the leaf lists parameters of the unstacked model."""
    return "encoder" in path.split("/")
