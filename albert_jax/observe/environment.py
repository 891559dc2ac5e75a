"""The environment of a run, which must be the same for the same numbers to come out again."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from albert_jax.errors import ConfigError

PACKAGES = (
    "albert-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array_record",
    "numpy", "sentencepiece", "safetensors", "tokenizers",
)  # fmt: skip
"""Packages whose version can change the numbers or the files of a run."""

FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")
"""Environment variables that change compiled programs."""


def refuse_seed_offset() -> None:
    """Raises ConfigError if JAX adds a number of its own to every seed.

    Dropout would change, and nothing in the record of the run would tell why.
    """
    import jax

    if offset := getattr(jax.config, "jax_random_seed_offset", 0):
        raise ConfigError(
            f"JAX_RANDOM_SEED_OFFSET is {offset}, which changes the dropout of a run but not its "
            "seed: unset it, and choose another --seed instead"
        )


def versions() -> dict[str, str]:
    """Version of each package in PACKAGES that is installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe() -> dict[str, object]:
    """Python, system, package versions, compiler flags, threads and devices, as plain JSON.

    Starts JAX's backend. The number of threads matters because XLA's CPU kernels split their sums
    by it.
    """
    import jax

    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "flags": {name: os.environ[name] for name in FLAGS if os.environ.get(name)},
        "threads": threads(),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "threefry_partitionable": bool(getattr(jax.config, "jax_threefry_partitionable", True)),
    }


def threads() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
