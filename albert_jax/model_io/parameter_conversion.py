"""Parameters and configs between our form and the formats of the original and of Hugging Face.

Both formats know groups of layers only. A model whose sharing they cannot express (attention
only, ffn only, none) is written with one group per layer, so that shared sublayers are repeated,
and its config gets the keys `sharing` and `sharing_groups`, which other programs ignore. With these
keys the model is read back as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from albert_jax import config_builder
from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import albert, sharing
from albert_jax.model_io.parameter_names import TABLE, Parameter, Params, WeightsFormat, check_names
from albert_jax.model_io.weights import check_finite
from albert_jax.tree import flatten, unflatten


def rounds_like_transformers(config: ModelConfig) -> bool:
    """Returns whether Transformers puts every layer into the group that the original puts it into.

    Their formulas are rounded differently in rare cases, such as 22 layers with 22 groups.
    """
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    return all(int(n / layers * groups) == int(n / (layers / groups)) for n in range(layers))


def _has_group_per_layer(config: ModelConfig, format: WeightsFormat) -> bool:
    if format == "huggingface" and not rounds_like_transformers(config):
        return True
    return config.sharing != "all"


def _stored_names(
    parameter: Parameter, config: ModelConfig, format: WeightsFormat
) -> dict[str, Any]:
    """Stored name -> index of our array, for each tensor that the parameter becomes."""
    if format == "native":
        return {parameter.path: ...}
    name: str = getattr(parameter, format)
    if parameter.sublayer is None:
        return {name: ...}
    inner = config.inner_group_num
    sets: Iterable[int] = range(config.num_hidden_groups * inner)
    if _has_group_per_layer(config, format):
        sets = getattr(sharing.table(config), parameter.sublayer)
    return {name.format(g=n // inner, i=n % inner): index for n, index in enumerate(sets)}


def to_format(
    params: Mapping[str, Any], config: ModelConfig, format: WeightsFormat
) -> dict[str, np.ndarray]:
    """Our parameters under the names of a format. They are views: nothing is copied."""
    flat = flatten(params)
    tensors: dict[str, np.ndarray] = {}
    for parameter in TABLE:
        if parameter.path not in flat:
            continue
        array = np.asarray(flat[parameter.path])
        for name, index in _stored_names(parameter, config, format).items():
            tensors[name] = array[index].T if parameter.is_transposed(format) else array[index]
    return tensors


def from_format(
    values: Mapping[str, Any], config: ModelConfig, format: WeightsFormat, where: str
) -> Params:
    """Tensors with the names of a format as our parameters in float32.

    The tensors are read one at a time; messages name the source as `where`. Raises CheckpointError
    if a tensor is missing, unexpected, not finite, or of another shape or type, or the copies of a
    shared sublayer differ. Optional modules may be missing.
    """
    shapes = {path: x.shape for path, x in flatten(albert.abstract_params(config)).items()}
    names = {p: _stored_names(p, config, format) for p in TABLE if p.path in shapes}
    check_names(values, {name: p.path for p in names for name in names[p]}, where)
    flat: dict[str, np.ndarray] = {}
    for parameter, indexes in names.items():
        path, transposed = parameter.path, parameter.is_transposed(format)
        filled: dict[Any, str] = {}
        for name, index in indexes.items():
            if name not in values:  # An optional module may be absent.
                continue
            array = np.asarray(values[name])
            expected = shapes[path] if index is ... else shapes[path][1:]
            _check_tensor(array, expected[::-1] if transposed else expected, f"{where}: {name}")
            array = array.T if transposed else array
            if path not in flat:
                flat[path] = np.zeros(shapes[path], np.float32)
            if index in filled and not np.array_equal(flat[path][index], array, equal_nan=True):
                raise CheckpointError(
                    f"{where}: {name} differs from {filled[index]}, but the config's sharing makes "
                    "them one: import it with sharing 'none' in its config"
                )
            flat[path][index] = array
            filled[index] = name
    check_finite(flat, where)
    return unflatten(flat)


def _check_tensor(array: np.ndarray, expected: tuple[int, ...], name: str) -> None:
    if array.shape != expected:
        hint = " (it looks transposed)" if array.shape == expected[::-1] else ""
        raise CheckpointError(
            f"{name} has shape {list(array.shape)}, the config wants {list(expected)}{hint}: "
            "config and weights do not belong together"
        )
    if str(array.dtype) not in ("float32", "float16", "bfloat16"):  # They widen without loss.
        raise CheckpointError(f"{name} is {array.dtype}: save it as float32 first")


def refuse_other_models(names: Iterable[str], where: str) -> None:
    """Raises CheckpointError if none of the tensors' names is that of a layer of ALBERT."""
    if not any("albert_layer_groups." in name or "/inner_group_" in name for name in names):
        raise CheckpointError(
            f"{where} has no layer of ALBERT, but of a BERT or another model: import an ALBERT"
        )


def config_entries(config: ModelConfig) -> dict[str, Any]:
    """Entries of a config.json of Transformers that are fields of ours, and the noted sharing.

    The head of words has no place there.
    """
    entries = dataclasses.asdict(config)
    del entries["sharing"], entries["word_vocab_size"]
    if _has_group_per_layer(config, "huggingface"):
        entries["num_hidden_groups"] = config.num_hidden_layers
        entries |= {"sharing": config.sharing, "sharing_groups": config.num_hidden_groups}
    return entries


def model_config_from(raw: Mapping[str, Any], hidden_act: Any, where: str) -> ModelConfig:
    """The ModelConfig of another program's config, with the activation in our words.

    Keys that we do not know are ignored, and absent ones keep our defaults. Raises CheckpointError
    naming a key that is missing, has the wrong type or is impossible.
    """
    eps = raw.get("layer_norm_eps", LAYER_NORM_EPS)
    if eps != LAYER_NORM_EPS:
        raise CheckpointError(
            f"{where}: layer_norm_eps is {eps}, ALBERT's is {LAYER_NORM_EPS}: this model cannot be "
            "expressed"
        )
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if name not in raw:
            raise CheckpointError(f"{where}: {name} is missing: is it an ALBERT config?")
    fields = [field.name for field in dataclasses.fields(ModelConfig)]
    table = {name: raw[name] for name in fields if name in raw} | {"hidden_act": hidden_act}
    if "sharing" in raw:
        table["num_hidden_groups"] = raw.get("sharing_groups", 1)
    shortest: dict[str, Any] = {"sequence_length": 8}
    try:
        return config_builder.from_dict({"model": table, "phases": [shortest]}, where).model
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
