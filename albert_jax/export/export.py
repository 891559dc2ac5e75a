"""Writing a model for another program."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import TYPE_CHECKING

from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.export import ExportFormat, Head, StoredType

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model

_DTYPES: dict[ExportFormat, tuple[StoredType, ...]] = {
    "huggingface": ("float32", "bfloat16"),
    "native": ("float32",),
    "onnx": ("float32", "int8"),
    "stablehlo": ("float32",),
    "plbert": ("float32",),
}
"""Types that the weights can be stored as."""
_PACKAGES: dict[ExportFormat, str] = {"onnx": "onnx", "stablehlo": "flatbuffers", "plbert": "torch"}
"""Packages beyond our requirements."""


def check(to: ExportFormat, head: Head | None, dtype: StoredType) -> None:
    """Raises ConfigError for a head or type that a target lacks, or a package that is missing."""
    if dtype not in _DTYPES[to]:
        others = [name for name, dtypes in _DTYPES.items() if dtype in dtypes]
        raise ConfigError(
            f"--dtype {dtype}: --to {to} stores {' or '.join(_DTYPES[to])}; "
            f"export {dtype} --to {' or '.join(others)}"
        )
    if head is not None and to in ("native", "plbert"):
        held = "all heads" if to == "native" else "no head"
        raise ConfigError(f"--head {head}: --to {to} always holds {held}: leave it out")
    package = _PACKAGES.get(to)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"--to {to} needs the package {package}: pip install {package}")


def export(
    model: Model,
    out: str,
    *,
    to: ExportFormat = "huggingface",
    head: Head | None = None,
    dtype: StoredType = "float32",
) -> str:
    """Writes the directory `out`, which must not exist, and returns lines on what was written.

    The default of `head` is the head of the model's task, or else all of pretraining.

    Raises:
      CheckpointError: The weights lack a module or are not finite, or `out` exists. Nothing is
        left behind.
      ConfigError: The target has no such head, type or task, or a package is missing.
      StorageError: The disk is full or not writable.
    """
    import jax

    from albert_jax.model_io.weights import Weights, check_finite, check_vocabulary

    check(to, head, dtype)
    model = dataclasses.replace(model, params=jax.device_get(model.params))
    check_vocabulary(model.vocabulary, model.config)
    check_finite(model.params, "the weights")
    if to == "native":
        from albert_jax.model_io import directories

        if "head" in model.params:
            raise CheckpointError(
                "--to native has no place for the head of a fine-tuned run: "
                "export it --to huggingface"
            )
        weights = Weights(
            config=model.config,
            params=model.params,
            format="native",
            vocabulary=model.vocabulary,
            run_config=model.run_config if model.has_run_config else None,
        )
        return f"{out}: {directories.write(weights, out)}"
    if to == "plbert":
        from albert_jax.export import plbert

        return plbert.export(model, out)
    if to == "huggingface":
        from albert_jax.export import huggingface

        return huggingface.export(model, out, head=head, dtype=dtype)
    from albert_jax.export import graph_folder

    return graph_folder.export(model, out, to=to, head=head, int8=dtype == "int8")
