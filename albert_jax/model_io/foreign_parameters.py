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

from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import albert, sharing
from albert_jax.model_io.parameter_names import TABLE, Format, Parameter, Params, check_names
from albert_jax.model_io.weights import default_config
from albert_jax.tree import flatten, unflatten


def rounds_like_transformers(config: ModelConfig) -> bool:
    """Whether Transformers puts every layer into the group that the original puts it into.

    Their formulas are rounded differently in rare cases, such as 22 layers with 22 groups.
    """
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    return all(int(n / layers * groups) == int(n / (layers / groups)) for n in range(layers))


def _stored_names(parameter: Parameter, config: ModelConfig, format: Format) -> dict[str, Any]:
    """Foreign name -> index of our array, for each tensor that the parameter becomes."""
    name: str = getattr(parameter, format)
    if parameter.sublayer is None:
        return {name: ...}
    inner = config.inner_group_num
    sets: Iterable[int] = range(config.num_hidden_groups * inner)
    if _has_group_per_layer(config, format):
        sets = getattr(sharing.table(config), parameter.sublayer)
    return {name.format(g=n // inner, i=n % inner): index for n, index in enumerate(sets)}


def _has_group_per_layer(config: ModelConfig, format: Format) -> bool:
    if format == "huggingface" and not rounds_like_transformers(config):
        return True
    return config.sharing != "all"


def to_foreign(
    params: Mapping[str, Any], config: ModelConfig, format: Format
) -> dict[str, np.ndarray]:
    """Our parameters under foreign names. They are views: nothing is copied."""
    flat = flatten(params)
    tensors: dict[str, np.ndarray] = {}
    for parameter in TABLE:
        if parameter.path not in flat:
            continue
        array = np.asarray(flat[parameter.path])
        for name, index in _stored_names(parameter, config, format).items():
            tensors[name] = array[index].T if parameter.is_transposed(format) else array[index]
    return tensors


def from_foreign(
    values: Mapping[str, Any], config: ModelConfig, format: Format, where: str
) -> Params:
    """Tensors with the names of the table as our parameters, in the types in which they are stored.

    The tensors are read one at a time; messages name the source as `where`. Raises CheckpointError
    if a tensor is missing, unexpected or of another shape, or the copies of a shared sublayer
    differ. A whole optional module may be missing.
    """
    shapes = {path: x.shape for path, x in flatten(albert.abstract_params(config)).items()}
    names = {p: _stored_names(p, config, format) for p in TABLE if p.path in shapes}
    check_names(values, {name: p.path for p in names for name in names[p]}, where)
    flat: dict[str, np.ndarray] = {}
    for parameter, indexes in names.items():
        if any(name in values for name in indexes):  # An optional module may be absent.
            transposed = parameter.is_transposed(format)
            shape = shapes[parameter.path]
            flat[parameter.path] = _gathered(values, indexes, shape, transposed, where)
    return unflatten(flat)


def _gathered(
    values: Mapping[str, Any],
    indexes: Mapping[str, Any],
    shape: tuple[int, ...],
    transposed: bool,
    where: str,
) -> np.ndarray:
    """Our array of a parameter, of which each tensor fills one index."""
    gathered = np.zeros(0)
    filled: dict[Any, str] = {}
    for name, index in indexes.items():
        array = np.asarray(values[name])
        expected = shape if index is ... else shape[1:]
        check_shape(array.shape, expected[::-1] if transposed else expected, name, where)
        array = array.T if transposed else array
        if not filled:
            gathered = np.zeros(shape, array.dtype)
        if index in filled and not same_bits(gathered[index], array):
            raise CheckpointError(
                f"{where}: {name} differs from {filled[index]}, but the config's sharing makes "
                "them one: import it with sharing 'none' in its config"
            )
        gathered[index] = array
        filled.setdefault(index, name)
    return gathered


def check_shape(shape: tuple[int, ...], expected: tuple[int, ...], name: str, where: str) -> None:
    """Raises CheckpointError if a stored tensor has another shape than the config asks for."""
    if shape != expected:
        hint = " (it looks transposed)" if shape == expected[::-1] else ""
        raise CheckpointError(
            f"{where}: {name} has shape {list(shape)}, the config wants {list(expected)}{hint}: "
            "config and weights do not belong together"
        )


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have the same bytes."""
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def refuse_other_models(names: Iterable[str], where: str) -> None:
    """Raises CheckpointError if none of the tensors' names is that of a layer of ALBERT."""
    marks = ("albert_layer_groups.", "/inner_group_")
    if not any(mark in name for mark in marks for name in names):
        raise CheckpointError(
            f"{where} has no layer of ALBERT, but of a BERT or another model: import an ALBERT"
        )


# ---- configs -------------------------------------------------------------------------------------

CONFIG_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(ModelConfig)
    if field.name not in ("hidden_act", "sharing")
)
"""Fields of ModelConfig that both formats have under the same name."""


def config_entries(config: ModelConfig, format: Format) -> dict[str, Any]:
    """Entries of a foreign config.json that both formats have, and the noted sharing."""
    entries = {name: getattr(config, name) for name in CONFIG_FIELDS}
    if _has_group_per_layer(config, format):
        entries["num_hidden_groups"] = config.num_hidden_layers
        entries |= {"sharing": config.sharing, "sharing_groups": config.num_hidden_groups}
    return entries


def model_config_from(raw: Mapping[str, Any], hidden_act: str, where: str) -> ModelConfig:
    """The ModelConfig of a foreign config, without its sharing; absent keys keep our defaults.

    Raises CheckpointError naming a key that is missing, has the wrong type or is impossible.
    """
    eps = raw.get("layer_norm_eps", LAYER_NORM_EPS)
    if eps != LAYER_NORM_EPS:
        raise CheckpointError(
            f"{where}: layer_norm_eps is {eps}, ALBERT's is {LAYER_NORM_EPS}: this model cannot be "
            "expressed"
        )
    for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if name not in raw:
            raise CheckpointError(f"{where}: {name} is missing: is it an ALBERT config?")
    values: dict[str, Any] = {}
    for name in CONFIG_FIELDS:
        if name not in raw:
            continue
        kind = type(getattr(ModelConfig(), name))
        if type(raw[name]) not in ((int,) if kind is int else (int, float)):
            raise CheckpointError(
                f"{where}: {name} is {raw[name]!r}, not a {kind.__name__}: fix it"
            )
        values[name] = kind(raw[name])
    config = ModelConfig(**values, hidden_act=hidden_act)  # type: ignore[arg-type]
    try:
        default_config(config).validate()
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return config
