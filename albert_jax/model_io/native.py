"""Our own directories: params.safetensors (our paths, float32), config.toml, vocabulary/ and a
report of the conversion. The config is good for `pretrain --config`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from albert_jax import configfile
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import CheckpointError
from albert_jax.files import new_folder
from albert_jax.model import albert
from albert_jax.model_io import safetensors_files
from albert_jax.model_io.foreign_parameters import check_shape
from albert_jax.model_io.parameter_names import check_names
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

    Raises CheckpointError if the directory exists, the model was fine-tuned, or a parameter is
    not finite, and StorageError if the disk is full or not writable.
    """
    params = jax.device_get(model.params)
    if "head" in params:
        raise CheckpointError(
            "--to native has no place for the head of a fine-tuned run: export it --to huggingface"
        )
    check_vocabulary(model.vocabulary, model.config)
    check_finite(params, "the weights")
    weights = Weights(
        config=model.config,
        params=params,
        format="native",
        vocabulary=model.vocabulary,
        run_config=model.run_config if model.has_run_config else None,
    )
    with new_folder(out_dir) as folder:
        summary = write(folder, weights)
    return f"{out_dir}: {summary}"


def write(folder: Path, weights: Weights) -> str:
    """Writes the files of a native directory and returns a summary."""
    flat = flatten(weights.params)
    metadata = {"format": "albert_jax" if weights.run_config else _NO_RUN_CONFIG}
    safetensors_files.write(folder / PARAMS_NAME, flat, metadata=metadata)
    config = weights.run_config or default_config(weights.config)
    (folder / CONFIG_NAME).write_text(configfile.dumps(config), encoding="utf-8")
    if weights.vocabulary is not None:
        vocabularies.save(weights.vocabulary, str(folder / VOCABULARY_NAME))
    return safetensors_files.report(folder / PARAMS_NAME, flat)


def read(path: Path) -> Weights:
    """Reads a native directory.

    Raises CheckpointError or ConfigError if a file is damaged or belongs to another model.
    """
    where = str(path / PARAMS_NAME)
    run_config = configfile.load(str(path / CONFIG_NAME))
    tensors = safetensors_files.Tensors(where)
    expected = flatten(albert.abstract_params(run_config.model))
    check_names(tensors, {name: name for name in expected}, where)
    for name, shape in tensors.shapes.items():
        check_shape(shape, expected[name].shape, name, where)
    params = to_float32(unflatten(tensors), where)
    folder = path / VOCABULARY_NAME
    vocabulary = vocabularies.load(str(folder)) if folder.is_dir() else None
    check_vocabulary(vocabulary, run_config.model)
    return Weights(
        config=run_config.model,
        params=params,
        format="native",
        vocabulary=vocabulary,
        run_config=None if tensors.metadata.get("format") == _NO_RUN_CONFIG else run_config,
    )
