"""Writing a model for another program: the targets in one table.

A new target needs a module with a function like those below, its entry in the table, and its name
in `Format`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from albert_jax.errors import ConfigError
from albert_jax.export.transformers_classes import Head

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model

Format = Literal["huggingface", "native", "onnx", "stablehlo"]
StoredType = Literal["float32", "bfloat16", "int8"]
Writer = Callable[["Model", str, Head | None, StoredType], str]
"""(model, new directory, head, type of the weights) -> lines on what was written."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format that models are exported to."""

    write: Writer
    dtypes: tuple[StoredType, ...] = ("float32",)
    """Types that the weights can be stored as."""
    has_heads: bool = True
    """Whether one of several heads can be chosen."""
    package: str | None = None
    """A package beyond our requirements; the extra that has the target's name installs it."""


def _huggingface(model: Model, out: str, head: Head | None, dtype: StoredType) -> str:
    from albert_jax.export import huggingface

    return huggingface.export(model, out, head=head, dtype=dtype)


def _native(model: Model, out: str, head: Head | None, dtype: StoredType) -> str:
    from albert_jax.model_io import native

    return native.save(model, out)


def _onnx(model: Model, out: str, head: Head | None, dtype: StoredType) -> str:
    from albert_jax.export import graph_folder, onnx

    return graph_folder.export(model, out, onnx.FORMAT, head=head, int8=dtype == "int8")


def _stablehlo(model: Model, out: str, head: Head | None, dtype: StoredType) -> str:
    from albert_jax.export import graph_folder, stablehlo

    return graph_folder.export(model, out, stablehlo.FORMAT, head=head)


TARGETS: dict[Format, Target] = {
    "huggingface": Target(write=_huggingface, dtypes=("float32", "bfloat16")),
    "native": Target(write=_native, has_heads=False),
    "onnx": Target(write=_onnx, dtypes=("float32", "int8"), package="onnx"),
    "stablehlo": Target(write=_stablehlo, package="flatbuffers"),
}


def check(to: Format, head: Head | None, dtype: StoredType) -> None:
    """Raises ConfigError for a head or type that a target lacks, or a package that is missing."""
    target = TARGETS[to]
    if dtype not in target.dtypes:
        others = [name for name, other in TARGETS.items() if dtype in other.dtypes]
        raise ConfigError(
            f"--dtype {dtype}: --to {to} stores {' or '.join(target.dtypes)}; "
            f"export {dtype} --to {' or '.join(others)}"
        )
    if head is not None and not target.has_heads:
        raise ConfigError(f"--head {head}: --to {to} always holds all heads: leave it out")
    if target.package and importlib.util.find_spec(target.package) is None:
        raise ConfigError(
            f"--to {to} needs the package {target.package}: pip install 'albert-jax[{to}]'"
        )


def export(
    model: Model,
    out: str,
    *,
    to: Format = "huggingface",
    head: Head | None = None,
    dtype: StoredType = "float32",
) -> str:
    """Writes the directory `out`, which must not exist, and returns lines on what was written.

    Args:
      model: The model.
      out: The new directory.
      to: The target.
      head: The outputs; the default is the head of the model's task, or else all of pretraining.
      dtype: Type of the stored weights.

    Raises:
      CheckpointError: The weights lack a module or are not finite, or `out` exists. Nothing is
        left behind.
      ConfigError: The target has no such head, type or task, or a package is missing.
      StorageError: The disk is full or not writable.
    """
    check(to, head, dtype)
    return TARGETS[to].write(model, out, head, dtype)
