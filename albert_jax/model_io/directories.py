"""Any directory or file with weights, recognized by its content: ours, Hugging Face's, TF1."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.fingerprint import SETTINGS
from albert_jax.errors import CheckpointError
from albert_jax.model_io import huggingface, native, tf1
from albert_jax.model_io.weights import Weights, check_vocabulary


def read(
    source: str | os.PathLike[str], *, vocabulary: str | None = None, config: str | None = None
) -> Weights:
    """Reads a directory of ours or of Hugging Face, a safetensors file, or a TF1 checkpoint.

    `vocabulary` and `config` are the paths of what does not lie beside the weights. Raises
    CheckpointError.
    """
    path, config_file = Path(source), Path(config) if config else None
    folder = path if path.is_dir() else path.parent
    if (path / native.PARAMS_NAME).is_file():
        return native.read(path)
    if _is_tf1(path):
        weights = tf1.read(path, config_file)
    elif path.is_dir() or path.suffix == ".safetensors":
        weights = huggingface.read(path, config_file)
    elif path.exists():
        raise CheckpointError(f"{path} is not opened: {huggingface.OTHER_FILES}")
    else:
        raise CheckpointError(
            f"{path}: nothing there: name a run, an exported directory, a .safetensors file or the "
            "prefix of a TF1 checkpoint (PREFIX.index)"
        )
    patterns = ("*.model", "vocab*.txt", SETTINGS)
    if vocabulary is None and not any(len(list(folder.glob(p))) == 1 for p in patterns):
        return weights
    loaded = vocabularies.load(vocabulary or str(folder))
    check_vocabulary(loaded, weights.config)
    return dataclasses.replace(weights, vocabulary=loaded)


def _is_tf1(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.index")) and not (path / huggingface.WEIGHTS_NAME).is_file()
    return path.suffix == ".index" or path.with_name(path.name + ".index").is_file()
