"""A state as named leaves: what is saved, compared and checked one by one.

Names are key paths joined by "/" ("params/pooler/kernel"), the same for dicts, tuples, named
tuples and dataclasses, so that a checkpoint does not depend on the classes of a state.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from albert_jax.tree import unflatten


def named(tree: Any) -> dict[str, Any]:
    """Key path -> leaf, in the order of the tree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def nested(tree: Any) -> dict[str, Any]:
    """The same leaves as plain nested dicts with string keys."""
    return unflatten(
        {
            name: np.asarray(leaf) if np.isscalar(leaf) else leaf
            for name, leaf in named(tree).items()
        }
    )


def unflatten_like(tree: Any, plain: dict[str, Any]) -> Any:
    """The leaves of `plain` (nested dicts) in the classes and order of `tree`."""
    leaves = named(plain)
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[name] for name in named(tree)])


def describe(tree: Any) -> dict[str, list[Any]]:
    """Key path -> [dtype name, shape], as JSON keeps it beside the arrays."""
    return {
        name: [jnp.dtype(jnp.result_type(leaf)).name, list(jnp.shape(leaf))]
        for name, leaf in named(tree).items()
    }


def differences(
    saved: dict[str, list[Any]], asked: dict[str, list[Any]], *, partial: bool
) -> list[str]:
    """One phrase per leaf that is missing, of another shape or type, or (unless partial) extra."""
    problems = []
    for name, (dtype, shape) in asked.items():
        if name not in saved:
            problems.append(f"{name} was not saved")
            continue
        saved_dtype, saved_shape = saved[name]
        if list(saved_shape) != list(shape):
            problems.append(f"{name} has shape {tuple(saved_shape)}, not {tuple(shape)}")
        elif saved_dtype != dtype:
            problems.append(f"{name} is {saved_dtype}, not {dtype}")
    if not partial:
        extra = [name for name in saved if name not in asked]
        problems += [f"{name} was saved but is not asked for" for name in extra]
    return problems


def restore_args(plain: dict[str, Any]) -> Any:
    """Orbax's restore arguments: each leaf on its own sharding, without a cast."""
    return jax.tree.map(_restore_arg, plain)


def finite_flags(tree: Any) -> list[tuple[list[str], Any]]:
    """Begins to look for non-finite numbers on the devices; `not_finite` waits for the answer.

    Returns:
      Groups of leaf names with one bool array each ([leaves of the group], True: all finite).
    """
    groups: dict[Any, tuple[list[str], list[Any]]] = {}
    for name, leaf in named(tree).items():
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        sharding = getattr(leaf, "sharding", None)
        mesh = sharding.mesh if isinstance(sharding, jax.sharding.NamedSharding) else None
        # One jitted call cannot mix arrays that live on different sets of devices.
        place = mesh or (frozenset(sharding.device_set) if sharding is not None else None)
        names, leaves = groups.setdefault(place, ([], []))
        names.append(name)
        leaves.append(leaf)
    flags = []
    for place, (names, leaves) in groups.items():
        mesh = place if isinstance(place, jax.sharding.Mesh) else None
        flags.append((names, _all_finite(mesh)(leaves)))
    return flags


def not_finite(flags: list[tuple[list[str], Any]]) -> list[str]:
    """Names of the leaves that hold a NaN or an infinity."""
    return [
        name
        for names, finite in flags
        for name, good in zip(names, np.asarray(finite), strict=True)
        if not good
    ]


@functools.lru_cache(maxsize=8)
def _all_finite(mesh: jax.sharding.Mesh | None) -> Any:
    def check(leaves: list[Any]) -> jax.Array:
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])

    if mesh is None:
        return jax.jit(check)
    # Replicated, so that every process can read the answer.
    return jax.jit(check, out_shardings=jax.sharding.NamedSharding(mesh, jax.P()))


def _restore_arg(leaf: Any) -> ocp.RestoreArgs:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=tuple(jnp.shape(leaf)), dtype=jnp.result_type(leaf)
    )
