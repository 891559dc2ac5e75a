"""`albert-jax export`: a step of a run, or a directory of ours, in the format of others."""

from __future__ import annotations

import importlib.util
from typing import Literal

import jax

from albert_jax.errors import ConfigError
from albert_jax.export.transformers_classes import Head
from albert_jax.model_io import model as loading
from albert_jax.model_io import native

Format = Literal["huggingface", "native", "tf1", "onnx", "stablehlo"]
StoredType = Literal["float32", "bfloat16", "int8"]

_TYPES: dict[Format, tuple[StoredType, ...]] = {
    "huggingface": ("float32", "bfloat16"),
    "native": ("float32",),
    "tf1": ("float32",),
    "onnx": ("float32", "int8"),
    "stablehlo": ("float32",),
}
"""What the weights of a format can be stored as."""

_PACKAGES: dict[Format, str] = {"onnx": "onnx", "stablehlo": "flatbuffers"}
"""What a format needs beyond our requirements; the extra of its name brings it."""


def export(
    source: str,
    out: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: Literal["trained", "averaged"] = "trained",
    to: Format = "huggingface",
    head: Head | None = None,
    dtype: StoredType = "float32",
    num_layers: int | None = None,
) -> None:
    """Writes the directory `out`, which must not exist, and prints what was written.

    `step` and `weights` choose what is taken from a run, `to` the format, `head` which outputs
    it has (none: the task's of a fine-tuned run, else all of pretraining), `dtype` the type of
    the stored weights, `passes` the depth of the network.

    Raises:
      CheckpointError: no such weights, or `out` exists; nothing is left behind.
      ConfigError: a depth that the model, or a head, type or task that the format does not have,
        or a package is missing.
      StorageError: the disk is full or not writable.
    """
    if dtype not in _TYPES[to]:
        others = [name for name, types in _TYPES.items() if dtype in types]
        raise ConfigError(
            f"--dtype {dtype}: --to {to} stores {' or '.join(_TYPES[to])}; "
            f"{dtype} goes --to {' or '.join(others)}"
        )
    if head is not None and to in ("native", "tf1"):
        raise ConfigError(f"--head {head}: --to {to} always holds all that there is: leave it out")
    package = _PACKAGES.get(to)
    if package and importlib.util.find_spec(package) is None:
        raise ConfigError(f"--to {to} needs the package {package}: pip install 'albert-jax[{to}]'")
    model = loading.load(source, step=step, weights=weights)
    if num_layers is not None:
        model = model.at_depth(num_layers)
    if to in ("onnx", "stablehlo"):
        from albert_jax.export import graphs

        print(graphs.export(model, out, to=to, head=head, int8=dtype == "int8"))
        return
    assert dtype != "int8"  # said above
    params = jax.device_get(model.params)
    print(
        native.export_run(
            params, model.run_config, model.vocabulary, out, to=to, head=head, dtype=dtype
        )
    )
