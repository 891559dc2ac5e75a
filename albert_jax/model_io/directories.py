"""Any directory or file with weights, recognized by its content: ours, Hugging Face's, TF1."""

from __future__ import annotations

import dataclasses
import glob
import os
from pathlib import Path

from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.fingerprint import SETTINGS
from albert_jax.errors import CheckpointError
from albert_jax.files import storage_errors
from albert_jax.model_io import huggingface, native, tf1
from albert_jax.model_io.weights import Weights, check_vocabulary


def read(
    source: str | os.PathLike[str], *, vocabulary: str | None = None, config: str | None = None
) -> Weights:
    """Reads weights.

    Args:
      source: A directory of ours or of Hugging Face, a safetensors file, or a TF1 checkpoint
        (prefix, index file or folder).
      vocabulary: Folder or file of the vocabulary, if it does not lie beside the weights.
      config: config.json or albert_config.json, if it does not lie beside the weights.

    Raises:
      CheckpointError: The line says what is wrong and where.
    """
    path, config_file = Path(source), Path(config) if config else None
    if path.is_file():
        _refuse_pickles(path)
    if (path / native.PARAMS_NAME).is_file():
        return native.read(path)
    if path.suffix in (".index", ".meta") or _is_tf1(path):
        weights, folder = tf1.read(path, config_file), tf1.find(path).parent
    elif path.is_dir() or path.suffix == ".safetensors":
        weights = huggingface.read(path, config_file)
        folder = path if path.is_dir() else path.parent
    elif path.exists():
        raise CheckpointError(
            f"{path} is no folder, .safetensors file or TF1 checkpoint: name one of them"
        )
    else:
        raise CheckpointError(
            f"{path}: nothing there: name a run, an exported directory, a .safetensors file or the "
            "prefix of a TF1 checkpoint (PREFIX.index)"
        )
    if vocabulary is None and not _has_vocabulary(folder):
        return weights
    loaded = vocabularies.load(vocabulary or str(folder))
    check_vocabulary(loaded, weights.config)
    return dataclasses.replace(weights, vocabulary=loaded)


def _is_tf1(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.index")) and not any(path.glob("*.safetensors"))
    shards = path.parent.glob(glob.escape(path.name) + ".data-*")
    return path.with_name(path.name + ".index").is_file() or any(shards)


def _has_vocabulary(folder: Path) -> bool:
    patterns = ("*.model", "vocab*.txt", SETTINGS)
    return any(len(list(folder.glob(pattern))) == 1 for pattern in patterns)


def _refuse_pickles(path: Path) -> None:
    """Refuses pickles and archives by their first bytes, whatever their names are."""
    with storage_errors(str(path)), path.open("rb") as file:
        start = file.read(8)
    pickled = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"
    archive = start.startswith((b"PK\x03\x04", b"\x89HDF", b"\x93NUMPY", b"\x1f\x8b"))
    suspect = (pickled or archive) and path.suffix != ".index"
    if path.suffix in huggingface.PICKLES or suspect:
        raise huggingface.pickle_error(path)
