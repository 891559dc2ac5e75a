"""Directories and safetensors files of Hugging Face Transformers: reading, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.errors import CheckpointError
from albert_jax.files.json_files import read_json
from albert_jax.model_io import published_models
from albert_jax.model_io.foreign_parameters import (
    HUGGINGFACE,
    ORIGINAL,
    from_foreign,
    group_table,
    model_config_from,
    read_with_noted_sharing,
    same_bits,
    to_foreign,
)
from albert_jax.model_io.parameter_names import Params
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.model_io.weights import LazyTensors, Weights, to_float32

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".joblib", ".npy", ".h5", ".msgpack")
_ACTIVATIONS = ("gelu_new", "relu", "tanh", "linear")
_PROJECTION = "albert.encoder.embedding_hidden_mapping_in."


def read(source: Path, config_file: Path | None = None) -> Weights:
    """Reads the weights of a directory or safetensors file.

    Raises CheckpointError if anything is missing, damaged or not an ALBERT.
    """
    path = source if source.is_file() else _weights_file(source)
    where = str(path)
    raw_path = config_file or path.with_name(CONFIG_NAME)
    raw = read_json(raw_path)
    kind = raw.get("model_type")
    if kind not in (None, "albert"):
        raise CheckpointError(f"{raw_path} describes a {kind} model, not ALBERT: import an ALBERT")
    tensors = Tensors(path)
    kind = published_models.relative(tensors)
    if kind:
        raise CheckpointError(f"{path} holds a {kind} model, not ALBERT: import an ALBERT")
    config, values = read_config(raw, str(raw_path)), _prefixed(tensors)
    noted = read_with_noted_sharing(raw, config, lambda c: from_huggingface(values, c, where))
    if noted is None:
        config, repeated = _regrouped(config, values)
        noted = config, from_huggingface(repeated, config, where)
    config, params = noted
    return Weights(
        config=config,
        params=to_float32(params, where),
        format="huggingface",
        stored=values,
        foreign_config=raw,
    )


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The ModelConfig of a config.json. Raises CheckpointError naming the key."""
    act = raw.get("hidden_act", "gelu_new")
    if act == "gelu_pytorch_tanh":
        act = "gelu_new"  # The same function under another name.
    if act == "gelu" and published_models.recognize(model_config_from(raw, "gelu_new", where)):
        act = "gelu_new"  # The hub's copies of v1 say gelu, the original's name for the tanh form.
    if act not in _ACTIVATIONS:
        hint = "; ALBERT's is the tanh form: set gelu_new if the weights are the original's"
        raise CheckpointError(
            f"{where}: hidden_act {act!r} is none of {', '.join(_ACTIVATIONS)}"
            + (hint if act == "gelu" else ": this model cannot be expressed")
        )
    return model_config_from(raw, act, where)


def to_huggingface(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under the names of AlbertForPreTraining. They are views: nothing is copied.

    A model whose embeddings are as wide as its hidden states gets the identity as the projection
    that Hugging Face always has. The tied decoder is left out, as Transformers does on saving.
    """
    tensors = to_foreign(params, config, HUGGINGFACE)
    if config.embedding_size == config.hidden_size:
        dtype = np.asarray(params["embeddings"]["word_embeddings"]["embedding"]).dtype
        tensors[_PROJECTION + "weight"] = np.eye(config.hidden_size, dtype=dtype)
        tensors[_PROJECTION + "bias"] = np.zeros(config.hidden_size, dtype)
    return tensors


def from_huggingface(
    values: Mapping[str, Any], config: ModelConfig, where: str = "weights"
) -> Params:
    """Tensors of a Hugging Face ALBERT as our parameters, in the types in which they are stored.

    Copies of the tied decoder must equal what they are tied to. Raises CheckpointError as
    `from_foreign`.
    """
    values = _prefixed(values)
    names = {name: name for name in values if name != "albert.embeddings.position_ids"}
    _untie(values, names, where)
    if config.embedding_size == config.hidden_size:
        _drop_identity(values, names, config.hidden_size, where)
    return from_foreign(LazyTensors(names, values.__getitem__), config, HUGGINGFACE, where)


def _prefixed(values: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Tensors under the names of AlbertForPreTraining; AlbertModel saves its without "albert."."""
    if any(name.startswith("albert.") for name in values):
        return values
    body = ("embeddings.", "encoder.", "pooler.")
    names = {("albert." + n if n.startswith(body) else n): n for n in values}
    return LazyTensors(names, values.__getitem__)


def _untie(values: Mapping[str, Any], names: dict[str, str], where: str) -> None:
    """Drops copies of tied tensors from `names` after comparing them with their owners."""
    ties = {
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    }
    for copy, owner in ties.items():
        if names.pop(copy, None) is None:
            continue
        if owner not in values:
            names[owner] = copy
        elif not same_bits(values[copy], values[owner]):
            raise CheckpointError(
                f"{where}: {copy} differs from {owner}: ALBERT ties them, this model does not"
            )


def _drop_identity(values: Mapping[str, Any], names: dict[str, str], size: int, where: str) -> None:
    """Drops the projection of a model of equal sizes, which must be the identity."""
    for leaf, identity in (("weight", np.eye(size)), ("bias", np.zeros(size))):
        name = names.pop(_PROJECTION + leaf, None)
        if name is not None and not np.array_equal(values[name], identity):
            raise CheckpointError(
                f"{where}: {name} is not the identity, but embedding_size equals hidden_size "
                f"({size}), where ALBERT has no projection: this model cannot be expressed"
            )


def _regrouped(
    config: ModelConfig, values: Mapping[str, np.ndarray]
) -> tuple[ModelConfig, Mapping[str, np.ndarray]]:
    """The config and tensors with one set per layer, if Transformers' groups are not ours."""
    theirs = group_table(config, HUGGINGFACE)
    if theirs == group_table(config, ORIGINAL):
        return config, values
    mark, repeated = "albert_layer_groups.", {}
    for name in values:
        before, found, after = name.partition(mark)
        if not found:
            repeated[name] = values[name]
            continue
        group, _, rest = after.partition(".")
        for layer, used in enumerate(theirs):
            if group == str(used):
                repeated[f"{before}{mark}{layer}.{rest}"] = values[name]
    return dataclasses.replace(config, sharing="none", num_hidden_groups=1), repeated


def _weights_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if (folder / WEIGHTS_NAME).is_file():
        return folder / WEIGHTS_NAME
    if len(files) == 1:
        return files[0]
    if files or (folder / f"{WEIGHTS_NAME}.index.json").is_file():
        raise CheckpointError(
            f"{folder} holds its weights in {len(files)} parts: save them in one file "
            "(save_pretrained with max_shard_size='100GB')"
        )
    pickles = [path for path in sorted(folder.glob("*")) if path.suffix in PICKLES]
    if pickles:
        raise pickle_error(pickles[0])
    raise CheckpointError(f"{folder} holds no {WEIGHTS_NAME}: give a folder with weights")


def pickle_error(path: Path) -> CheckpointError:
    """The refusal of weights in a format that can run code, or that nobody needs."""
    return CheckpointError(
        f"{path} is not opened: files of this kind can run code. Where you trust it, convert it: "
        "CLASS.from_pretrained(FOLDER).save_pretrained(NEW), with the CLASS that its config.json "
        "names, writes model.safetensors; copy spiece.model or vocab.txt beside it"
    )
