"""Our own directories: params.safetensors (our paths, float32), config.toml, vocabulary/ and a
report of the conversion. The config is good for `pretrain --config`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from albert_jax import configfile
from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import CheckpointError
from albert_jax.files.new_folder import new_folder
from albert_jax.model_io import conversion_report, safetensors_files
from albert_jax.model_io.conversion_report import Row
from albert_jax.model_io.foreign_parameters import ORIGINAL, to_foreign
from albert_jax.model_io.huggingface import to_huggingface
from albert_jax.model_io.parameter_names import OPTIONAL_MODULES, listed, native_shapes
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.model_io.weights import (
    Weights,
    check_finite,
    check_vocabulary,
    default_config,
    to_float32,
)
from albert_jax.tree import flatten, unflatten

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model

PARAMS_NAME = "params.safetensors"
CONFIG_NAME = "config.toml"
VOCABULARY_NAME = "vocabulary"
_NO_RUN_CONFIG = "albert_jax, without a training config"
"""Value of "format" in the metadata of parameters whose config.toml holds defaults."""


def save(model: Model, out_dir: str | os.PathLike[str]) -> str:
    """Writes a model as a new directory of ours; returns a line on what was written.

    Raises:
      CheckpointError: The directory exists, the model was fine-tuned, or a parameter is not
        finite.
      StorageError: The disk is full or not writable.
    """
    params = jax.device_get(model.params)
    if "head" in params:
        raise CheckpointError(
            "--to native has no place for the head of a fine-tuned run: export it --to huggingface"
        )
    weights = Weights(
        config=model.config,
        params=params,
        format="native",
        vocabulary=model.vocabulary,
        run_config=model.run_config if model.has_run_config else None,
    )
    check_vocabulary(model.vocabulary, model.config)
    check_finite(params, "the weights")
    with new_folder(out_dir) as folder:
        rows = write(folder, weights)
    return f"{out_dir}: {conversion_report.summary(rows)}"


def write(folder: Path, weights: Weights) -> list[Row]:
    """Writes the files of a native directory, and compares what was written with its source.

    Raises CheckpointError if it reads back differently.
    """
    flat = flatten(weights.params)
    known = weights.run_config is not None
    metadata = {"format": "albert_jax" if known else _NO_RUN_CONFIG}
    safetensors_files.write(folder / PARAMS_NAME, flat, metadata=metadata)
    config = weights.run_config or default_config(weights.config)
    (folder / CONFIG_NAME).write_text(configfile.dumps(config), encoding="utf-8")
    if weights.vocabulary is not None:
        vocabularies.save(weights.vocabulary, str(folder / VOCABULARY_NAME))
    rows = conversion_report.compare(flat, Tensors(folder / PARAMS_NAME))
    if conversion_report.largest_difference(rows):
        raise CheckpointError(f"{folder}: what was written reads back differently: check the disk")
    if weights.format == "huggingface":
        rows = _compare_with_source(to_huggingface(weights.params, weights.config), weights)
    elif weights.format == "tf1":
        rows = _compare_with_source(to_foreign(weights.params, weights.config, ORIGINAL), weights)
    conversion_report.write(
        folder,
        rows,
        ours=weights.config,
        theirs=weights.foreign_config,
        notes=f"{weights.format} to albert_jax",
    )
    return rows


def _compare_with_source(tensors: dict, weights: Weights) -> list[Row]:
    stored = weights.stored
    return conversion_report.compare({n: t for n, t in tensors.items() if n in stored}, stored)


def read(path: Path) -> Weights:
    """Reads a native directory.

    Raises CheckpointError or ConfigError if a file is damaged or belongs to another model.
    """
    run_config = configfile.load(str(path / CONFIG_NAME))
    tensors = Tensors(path / PARAMS_NAME)
    _check_shapes(tensors, run_config.model)
    params = unflatten({name: tensors[name] for name in tensors})
    folder = path / VOCABULARY_NAME
    vocabulary = vocabularies.load(str(folder)) if folder.is_dir() else None
    check_vocabulary(vocabulary, run_config.model)
    known = tensors.metadata.get("format") != _NO_RUN_CONFIG
    return Weights(
        config=run_config.model,
        params=to_float32(params, str(path / PARAMS_NAME)),
        format="native",
        vocabulary=vocabulary,
        run_config=run_config if known else None,
    )


def _check_shapes(tensors: Tensors, config: ModelConfig) -> None:
    where, shapes = tensors.path, native_shapes(config)
    modules = {name.split("/")[0] for name in tensors}
    absent = set(OPTIONAL_MODULES) - modules
    missing = [n for n in shapes if n not in tensors and n.split("/")[0] not in absent]
    unexpected = [name for name in tensors if name not in shapes]
    for problem, names in (("missing", missing), ("not expected", unexpected)):
        if names:
            raise CheckpointError(
                f"{where}: {listed(names)} {problem}: its config.toml is another model's"
            )
    for name, shape in tensors.shapes.items():
        if shape != shapes[name]:
            raise CheckpointError(
                f"{where}: {name} has shape {list(shape)}, config.toml wants "
                f"{list(shapes[name])}: they do not belong together"
            )
