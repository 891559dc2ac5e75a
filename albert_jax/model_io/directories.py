"""Directories with weights: ours are written and read here, and those of others are recognized.

A directory of ours holds params.safetensors (our paths, float32), config.toml, which is good for
`pretrain --config`, vocabulary/ and a report of the conversion.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from albert_jax import configfile
from albert_jax.data.corpus.corpus import MANIFEST
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.fingerprint import SETTINGS
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.files import new_folder
from albert_jax.model_io import huggingface, plbert, run_record, safetensors_files, tf1
from albert_jax.model_io.parameter_conversion import from_format
from albert_jax.model_io.weights import Weights, check_vocabulary, default_config
from albert_jax.tree import flatten

PARAMS_NAME = "params.safetensors"
CONFIG_NAME = "config.toml"
VOCABULARY_NAME = "vocabulary"
_NO_RUN_CONFIG = "albert_jax, without a training config"
"""Value of "format" in the metadata of parameters whose config.toml holds defaults."""
_WITH_VOCABULARY = ", vocabulary "
"""The prefix of the vocabulary's fingerprint in that file."""


def write(weights: Weights, out_dir: str | os.PathLike[str]) -> str:
    """Writes weights as a new directory of ours; returns a summary.

    Raises CheckpointError if the directory exists, and StorageError if it cannot be written.
    """
    flat = flatten(weights.params)
    config = weights.run_config or default_config(weights.config)
    known = weights.vocabulary.fingerprint if weights.vocabulary else weights.fingerprint
    # One entry, because the library writes several in any order.
    format = "albert_jax" if weights.run_config else _NO_RUN_CONFIG
    metadata = {"format": format + (f"{_WITH_VOCABULARY}{known}" if known else "")}
    with new_folder(out_dir) as folder:
        safetensors_files.write(folder / PARAMS_NAME, flat, metadata=metadata)
        (folder / CONFIG_NAME).write_text(configfile.dumps(config), encoding="utf-8")
        if weights.vocabulary is not None:
            vocabularies.save(weights.vocabulary, str(folder / VOCABULARY_NAME))
        return safetensors_files.report(folder / PARAMS_NAME, flat)


def read(
    source: str | os.PathLike[str], *, vocabulary: str | None = None, config: str | None = None
) -> Weights:
    """Reads a directory of ours, of Hugging Face or of a PL-BERT, a safetensors file, or a TF1
    checkpoint.

    `vocabulary` and `config` are the paths of what does not lie beside the weights. Where the
    fingerprint of a vocabulary came with the weights, no other one is taken. Raises
    CheckpointError, ConfigError or DataError.
    """
    path, config_file = Path(source), Path(config) if config else None
    folder = path if path.is_dir() else path.parent
    is_theirs = (path / huggingface.CONFIG_NAME).is_file()
    is_plbert = (path / plbert.CONFIG_NAME).is_file() and not is_theirs
    if config and (is_plbert or (path / PARAMS_NAME).is_file()):
        raise ConfigError(f"--config: {path} has its own config: leave it out")
    if (path / PARAMS_NAME).is_file():
        weights = _read_native(path)
        if vocabulary is None and (path / VOCABULARY_NAME).is_dir():
            vocabulary = str(path / VOCABULARY_NAME)
    elif is_plbert:
        weights = plbert.read(path)
    elif not (path / huggingface.WEIGHTS_NAME).is_file() and (index := tf1.index_file(path)):
        weights = tf1.read(index, config_file)
    elif (path / run_record.RECORD).is_file():
        raise CheckpointError(f"{path} is a run: albert-jax export writes its weights")
    elif kind := _folder_without_weights(path):
        raise CheckpointError(
            f"{path} is {kind} and holds no weights: name a run, an exported directory or a "
            ".safetensors file"
        )
    elif path.is_dir() or path.suffix == ".safetensors":
        weights = huggingface.read(path, config_file)
    elif ".data-" in path.name:
        raise CheckpointError(
            f"{path} is a part of a TF1 checkpoint: name its prefix, which stands before .data-"
        )
    elif path.exists():
        raise CheckpointError(f"{path} is not opened: {huggingface.OTHER_FILES}")
    else:
        raise CheckpointError(_nothing_there(str(source)))
    if vocabulary is None and not holds_vocabulary(folder):
        return weights
    loaded = vocabularies.load(vocabulary or str(folder))
    check_vocabulary(loaded, weights.config)
    if weights.fingerprint is not None:
        where = vocabulary or str(folder)
        run_record.check_vocabulary(loaded, weights.fingerprint, where, f"the model {path}")
    return dataclasses.replace(weights, vocabulary=loaded)


def holds_vocabulary(folder: Path) -> bool:
    """Returns whether the files of one vocabulary lie in a folder."""
    patterns = ("*.model", "vocab*.txt", SETTINGS)
    return any(len(list(folder.glob(pattern))) == 1 for pattern in patterns)


def _folder_without_weights(path: Path) -> str:
    """Returns a name for a folder of ours that holds no model; "" for all other folders."""
    if (path / MANIFEST).is_file():
        return "a folder of prepared data"
    if (path / SETTINGS).is_file() and not (path / huggingface.WEIGHTS_NAME).is_file():
        return "a vocabulary"
    return ""


def _nothing_there(source: str) -> str:
    """The complaint about a path without a file; a name of the hub is told how to get it."""
    if "://" in source:
        return f"{source}: exported directories are read from a local disk: copy it there first"
    if not re.fullmatch(r"([\w-]+/)?[\w.-]*albert[\w.-]*", source, re.I):
        return (
            f"{source}: nothing there: name a run, an exported directory, a .safetensors file or "
            "the prefix of a TF1 checkpoint (PREFIX.index)"
        )
    name = source if "/" in source else f"albert/{source}"
    folder = name.rpartition("/")[2]
    return (
        f"{source}: no such folder, and nothing is downloaded here: get a model of the Hugging "
        f"Face Hub with hf download {name} --local-dir {folder} (pip install huggingface_hub), and "
        "name that folder"
    )


def _read_native(path: Path) -> Weights:
    run_config = configfile.load(str(path / CONFIG_NAME))
    tensors = safetensors_files.Tensors(path / PARAMS_NAME)
    format, _, fingerprint = tensors.metadata.get("format", "").partition(_WITH_VOCABULARY)
    return Weights(
        config=run_config.model,
        params=from_format(tensors, run_config.model, "native", str(tensors.path)),
        format="native",
        run_config=None if format == _NO_RUN_CONFIG else run_config,
        fingerprint=fingerprint or None,
    )
