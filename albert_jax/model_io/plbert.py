"""The folder of a PL-BERT: config.yml with the structure, and an AlbertModel without heads.

Speech programs keep the weights in files of torch, which can run code and are never read here. A
folder is read with its weights as safetensors, under the names of those files or of AlbertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from albert_jax import files
from albert_jax.config import ModelConfig
from albert_jax.errors import CheckpointError
from albert_jax.model_io import huggingface
from albert_jax.model_io.parameter_names import Params
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.model_io.weights import LazyTensors, Weights

CONFIG_NAME = "config.yml"
SECTION = "model_params"
"""Mapping of config.yml that speech programs give to AlbertConfig."""
FIELDS = (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "num_hidden_layers",
)
"""Fields that a config.yml tells; all others have the values of AlbertConfig."""
PREFIX = "module.encoder."
"""Prefix of the names of AlbertModel in the files of torch."""
_MAX_BYTES = 1 << 16
_RECIPE = (
    "the torch file of a PL-BERT can run code; where you trust it, save its state dict as "
    "model.safetensors with safetensors.torch.save_file (docs/speech.md has the line)"
)


def entries(config: ModelConfig) -> dict[str, int]:
    """The values of FIELDS. Raises CheckpointError if they do not tell the whole structure."""
    told = {name: getattr(config, name) for name in FIELDS}
    default = ModelConfig()
    for name in (
        "num_hidden_groups", "inner_group_num", "type_vocab_size", "sharing", "hidden_act",
    ):  # fmt: skip
        value, usual = getattr(config, name), getattr(default, name)
        if value != usual:
            raise CheckpointError(
                f"the model has {name} {value}, but a program that reads {CONFIG_NAME} would build "
                f"{usual}: export it --to huggingface"
            )
    return told


def body(params: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The tensors of AlbertModel under its own names."""
    chosen = {name: params[name] for name in ("embeddings", "encoder", "pooler") if name in params}
    tensors = huggingface.to_huggingface(chosen, config)
    return {name.removeprefix("albert."): tensor for name, tensor in tensors.items()}


def read(folder: Path) -> Weights:
    """Reads the body of a PL-BERT from config.yml and the one safetensors file beside it.

    Other heads in the file are left out. Raises CheckpointError if anything is missing or damaged.
    """
    config = _config(folder / CONFIG_NAME)
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder} holds {len(found)} .safetensors files beside {CONFIG_NAME}, not one: "
            f"{_RECIPE}"
        )
    tensors = Tensors(found[0])
    names = {name: name for name in tensors}
    if any(name.startswith(PREFIX) for name in names):
        names = {n.removeprefix(PREFIX): n for n in names if n.startswith(PREFIX)}
    params: Params = huggingface.from_huggingface(
        LazyTensors(names, tensors.__getitem__), config, str(found[0])
    )
    return Weights(config=config, params=params, format="plbert")


def _config(path: Path) -> ModelConfig:
    try:
        content = yaml.safe_load(files.read(str(path), limit=_MAX_BYTES) or b"")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} is not YAML ({problem}): fetch it again") from error
    values = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(values, dict) or not values:
        raise CheckpointError(f"{path}: has no mapping {SECTION}: is it the config of a PL-BERT?")
    known = (*FIELDS, "hidden_act", "num_hidden_groups", "inner_group_num", "type_vocab_size")
    usual = {name: values[name] for name in known if name in values}
    return huggingface.read_config(usual, str(path))
