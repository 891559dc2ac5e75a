"""A state as named leaves, which are saved, compared and checked one by one.

Names are key paths joined by "/" ("params/pooler/kernel"), the same for dicts, tuples, named
tuples and dataclasses, so that a checkpoint does not depend on the classes of a state.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.tree import path_of, unflatten


def named(tree: Any) -> dict[str, Any]:
    """Key path -> leaf, in the order of the tree."""
    return {path_of(keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def nested(tree: Any) -> dict[str, Any]:
    """The same leaves as plain nested dicts with string keys."""
    leaves = named(tree).items()
    return unflatten({key: np.asarray(v) if np.isscalar(v) else v for key, v in leaves})


def unflatten_like(tree: Any, plain: dict[str, Any]) -> Any:
    """The leaves of `plain` (nested dicts) in the classes and order of `tree`."""
    leaves = named(plain)
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[name] for name in named(tree)])


def describe(tree: Any) -> dict[str, list[Any]]:
    """Key path -> [dtype name, shape], which is stored as JSON beside the arrays."""
    return {
        name: [jnp.dtype(jnp.result_type(leaf)).name, list(jnp.shape(leaf))]
        for name, leaf in named(tree).items()
    }


def differences(
    saved: dict[str, list[Any]], requested: dict[str, list[Any]], *, partial: bool
) -> list[str]:
    """One phrase per requested leaf that is missing or of another shape or type.

    Unless `partial`, there is also one per saved leaf that is not requested.
    """
    problems = []
    for name, (dtype, shape) in requested.items():
        saved_dtype, saved_shape = saved.get(name, (None, None))
        if saved_shape is None:
            problems.append(f"{name} was not saved")
        elif saved_shape != shape:
            problems.append(f"{name} has shape {tuple(saved_shape)}, not {tuple(shape)}")
        elif saved_dtype != dtype:
            problems.append(f"{name} is {saved_dtype}, not {dtype}")
    extra = [] if partial else [name for name in saved if name not in requested]
    return problems + [f"{name} was saved but is not in the requested state" for name in extra]


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
    # 0 * inf and 0 * nan are nan. A sum compiles in half the time of all().
    return jnp.isfinite(jnp.sum(0 * leaf))


def finite_flags(tree: Any) -> dict[str, jax.Array]:
    """Starts the search for non-finite numbers on the devices; `not_finite` waits for its end.

    Every process gets all flags. A program for each shape compiles sooner than one for all leaves.
    """
    return {
        name: _is_finite(leaf)
        for name, leaf in named(tree).items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }


def not_finite(flags: dict[str, jax.Array]) -> list[str]:
    """The names of the leaves that hold a NaN or an infinity."""
    return [name for name, finite in flags.items() if not finite]
