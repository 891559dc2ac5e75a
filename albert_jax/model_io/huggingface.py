"""Directories and safetensors files of Hugging Face Transformers: reading, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.errors import CheckpointError
from albert_jax.json_files import read_json
from albert_jax.model_io import parameter_conversion
from albert_jax.model_io.parameter_names import Params
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.model_io.weights import LazyTensors, Weights

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
GRAPHS = ("model.onnx", "model.stablehlo")
"""Files of exported graphs."""
FINGERPRINT = "albert_jax_vocabulary_sha256"
"""Entry of our config.json that Transformers ignores: the vocabulary of the training."""
OTHER_FILES = (
    "weights in other files can run code: where you trust them, load them with Transformers, save "
    "them with save_pretrained(NEW, max_shard_size='100GB') and copy the vocabulary beside them"
)
"""The refusal of files that are not safetensors, and of parts."""
_PROJECTION = "albert.encoder.embedding_hidden_mapping_in."
_TIES = {
    "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
}
"""Copies of tied tensors, which some files hold, and the tensors that they are tied to."""
_PUBLISHED = ((768, 12), (1024, 24), (2048, 24), (4096, 12))
"""hidden_size and num_hidden_layers of the published English models."""


def read(source: Path, config_file: Path | None = None) -> Weights:
    """Reads the weights of a directory or safetensors file.

    Raises CheckpointError if anything is missing, damaged or not an ALBERT.
    """
    path = source if source.is_file() else source / WEIGHTS_NAME
    if not path.is_file():
        if graphs := [name for name in GRAPHS if (source / name).is_file()]:
            raise CheckpointError(
                f"{source} holds the graph {graphs[0]}, which other programs run: name the run or "
                "directory that it was made of"
            )
        raise CheckpointError(f"{source} holds no {WEIGHTS_NAME}: {OTHER_FILES}")
    raw_path = config_file or path.with_name(CONFIG_NAME)
    raw = read_json(raw_path)
    kind = raw.get("model_type")
    if kind not in (None, "albert"):
        raise CheckpointError(f"{raw_path} describes a {kind} model, not ALBERT: import an ALBERT")
    config, tensors = read_config(raw, str(raw_path)), Tensors(path)
    parameter_conversion.refuse_other_models(tensors, str(path))
    params = from_huggingface(tensors, config, str(path))
    return Weights(
        config=config,
        params=params,
        format="huggingface",
        fingerprint=fingerprint_in(raw, raw_path),
    )


def fingerprint_in(raw: Mapping[str, Any], where: Path) -> str | None:
    """The fingerprint of the vocabulary in a config.json of ours; None in one of others."""
    found = raw.get(FINGERPRINT)
    if found is not None and not isinstance(found, str):
        raise CheckpointError(f"{where}: {FINGERPRINT} is no text: export the model again")
    return found


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The ModelConfig of a config.json. Raises CheckpointError naming the key."""
    act = raw.get("hidden_act", "gelu_new")
    size = raw.get("hidden_size"), raw.get("num_hidden_layers")
    published = size in _PUBLISHED and raw.get("vocab_size") == 30000
    # The hub's copies of version 1 say gelu, which is the original's name for the tanh form.
    if act == "gelu_pytorch_tanh" or (act == "gelu" and published):
        act = "gelu_new"
    if act == "gelu":
        raise CheckpointError(
            f"{where}: hidden_act is 'gelu', but ALBERT's is the tanh form: set gelu_new if the "
            "weights are the original's"
        )
    config = parameter_conversion.model_config_from(raw, act, where)
    if "sharing" not in raw and not parameter_conversion.rounds_like_transformers(config):
        raise CheckpointError(
            f"{where}: Transformers rounds {config.num_hidden_groups} groups of "
            f'{config.num_hidden_layers} layers in its own way: add "sharing": "none" if there are '
            "as many groups as layers"
        )
    return config


def to_huggingface(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under the names of AlbertForPreTraining. They are views: nothing is copied.

    A model whose embeddings are as wide as its hidden states gets the identity as the projection
    that Hugging Face always has. The tied decoder is left out, as Transformers does on saving.
    """
    tensors = parameter_conversion.to_format(params, config, "huggingface")
    if config.embedding_size == config.hidden_size:
        tensors[_PROJECTION + "weight"] = np.eye(config.hidden_size, dtype=np.float32)
        tensors[_PROJECTION + "bias"] = np.zeros(config.hidden_size, np.float32)
    return tensors


def from_huggingface(
    values: Mapping[str, Any], config: ModelConfig, where: str = "weights"
) -> Params:
    """Tensors of a Hugging Face ALBERT as our parameters.

    Copies of the tied decoder must equal the tensors that they are tied to, and the projection of
    a model of equal sizes must be the identity. Raises CheckpointError as `from_format`.
    """
    # AlbertModel saves its tensors without "albert.".
    bare = not any(name.startswith("albert.") for name in values)
    body = ("embeddings.", "encoder.", "pooler.") if bare else ()
    names = {("albert." + name if name.startswith(body) else name): name for name in values}
    names.pop("albert.embeddings.position_ids", None)
    for copy, owner in _TIES.items():
        name = names.pop(copy, None)
        if name is not None and not np.array_equal(
            values[name], values[names.setdefault(owner, name)], equal_nan=True
        ):
            raise CheckpointError(
                f"{where}: {copy} differs from {owner}: ALBERT ties them, this model does not"
            )
    size = config.hidden_size
    if config.embedding_size == size:
        for leaf, identity in (("weight", np.eye), ("bias", np.zeros)):
            name = names.pop(_PROJECTION + leaf, None)
            if name is None:
                continue
            found = values[name]
            # The shape comes first: only the file may decide how much memory its check takes.
            if found.shape[:1] != (size,) or not np.array_equal(found, identity(size)):
                raise CheckpointError(
                    f"{where}: {name} is not the identity, but embedding_size equals hidden_size "
                    f"({size}), where ALBERT has no projection: this model cannot be expressed"
                )
    tensors = LazyTensors(names, values.__getitem__)
    return parameter_conversion.from_format(tensors, config, "huggingface", where)
