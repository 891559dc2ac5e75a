"""Parameters and configs between our form and the formats of the original and of Hugging Face.

Both formats know groups of layers only. A model whose sharing they cannot express (attention
only, ffn only, none) is written with one group per layer, so that shared sublayers are repeated,
and its config gets the key `sharing`, which the other programs ignore. With this key the model is
read back as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import sharing
from albert_jax.model_io.parameter_names import (
    Parameter,
    Params,
    axis_sizes,
    huggingface_transposes,
    listed,
    num_sets,
    original_transposes,
    parameters,
)
from albert_jax.model_io.weights import default_config
from albert_jax.tree import flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Format:
    """How another program names parameters and groups layers."""

    name: Callable[[Parameter], str]
    transposes: Callable[[Parameter], bool]
    group: Callable[[int, int, int], int]
    """(layer, number of layers, number of groups) -> the layer's group."""


ORIGINAL = Format(
    name=lambda parameter: parameter.original,
    transposes=original_transposes,
    group=lambda layer, layers, groups: int(layer / layers * groups),
)
HUGGINGFACE = Format(
    name=lambda parameter: parameter.huggingface,
    transposes=huggingface_transposes,
    # In rare cases (22 layers, 22 groups) this is rounded to another group than the original's.
    group=lambda layer, layers, groups: int(layer / (layers / groups)),
)


def group_table(config: ModelConfig, format: Format) -> list[int]:
    """The group of each layer, for the config's number of groups."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    return [format.group(layer, layers, groups) for layer in range(layers)]


def num_groups(config: ModelConfig, format: Format) -> int:
    """Number of groups in a foreign config: ours, or one per layer for another sharing.

    Raises CheckpointError if the format's rounding would put two layers into one group.
    """
    layers = config.num_hidden_layers
    if _has_same_groups(config, format):
        return config.num_hidden_groups
    if any(format.group(layer, layers, layers) != layer for layer in range(layers)):
        raise CheckpointError(
            f"a model of {layers} layers with sharing {config.sharing!r} and "
            f"{config.num_hidden_groups} groups cannot be written in this format, whose rounding "
            "gives two layers one group: export another format"
        )
    return layers


def _has_same_groups(config: ModelConfig, format: Format) -> bool:
    return config.sharing == "all" and group_table(config, format) == group_table(config, ORIGINAL)


def _names(parameter: Parameter, config: ModelConfig, format: Format) -> dict[str, int | None]:
    """Foreign name -> our parameter set, for each tensor that the parameter becomes."""
    name = format.name(parameter)
    if parameter.sublayer is None:
        return {name: None}
    inner = config.inner_group_num
    blocks = range(num_groups(config, format) * inner)
    sets: Iterable[int] = blocks
    if not _has_same_groups(config, format):
        sets = getattr(sharing.table(config), parameter.sublayer)
    return {
        name.format(g=block // inner, i=block % inner): chosen
        for block, chosen in zip(blocks, sets, strict=True)
    }


def to_foreign(
    params: Mapping[str, Any], config: ModelConfig, format: Format
) -> dict[str, np.ndarray]:
    """Our parameters under foreign names. They are views: nothing is copied.

    Raises CheckpointError if a parameter is missing or the format cannot express the sharing.
    """
    flat = flatten(params)
    tensors: dict[str, np.ndarray] = {}
    for parameter in parameters(config):
        if parameter.path not in flat:
            if parameter.module != "body" and parameter.module not in params:
                continue
            raise CheckpointError(f"parameter {parameter.path} is missing: nothing was written")
        array = np.asarray(flat[parameter.path])
        for name, chosen in _names(parameter, config, format).items():
            tensor = array if chosen is None else array[chosen]
            tensors[name] = tensor.T if format.transposes(parameter) else tensor
    return tensors


def from_foreign(
    values: Mapping[str, Any], config: ModelConfig, format: Format, where: str
) -> Params:
    """Tensors with the names of the table as our parameters, in the types in which they are stored.

    Args:
      values: The tensors; they are read one at a time.
      config: Their structure.
      format: Their format.
      where: The source, for messages.

    Raises:
      CheckpointError: A tensor is missing, unexpected or of another shape, or the copies of a
        shared sublayer differ. A whole optional module may be missing.
    """
    names = {p: _names(p, config, format) for p in parameters(config)}
    modules = {"body"} | {p.module for p in names if any(name in values for name in names[p])}
    names = {p: names[p] for p in names if p.module in modules}
    expected = {name for p in names for name in names[p]}
    missing = [name for name in expected if name not in values]
    if missing:
        raise CheckpointError(
            f"{where}: {listed(missing)} missing: is it a complete ALBERT with its own config?"
        )
    extra = [name for name in values if name not in expected]
    if extra:
        raise CheckpointError(
            f"{where}: {listed(extra)} not expected: the config describes another model, or the "
            "file holds the head of a fine-tuned one: give the pretraining model, or to predict "
            "the run folder"
        )
    flat: dict[str, np.ndarray] = {}
    for parameter, sets in names.items():
        arrays = (_checked(values, name, parameter, config, format, where) for name in sets)
        if parameter.sublayer is None:
            flat[parameter.path] = np.ascontiguousarray(next(arrays))
        else:
            count = num_sets(config, parameter.sublayer)
            flat[parameter.path] = _stacked(arrays, sets, count, where)
    return unflatten(flat)


def _stacked(
    arrays: Iterable[np.ndarray], sets: Mapping[str, int | None], count: int, where: str
) -> np.ndarray:
    """The parameter sets as one array; copies of one set must be equal."""
    stacked = np.zeros(0)
    names: dict[int | None, str] = {}
    for array, (name, chosen) in zip(arrays, sets.items(), strict=True):
        if not names:
            stacked = np.zeros((count, *array.shape), array.dtype)
        if chosen in names and not same_bits(stacked[chosen], array):
            raise CheckpointError(
                f"{where}: {name} differs from {names[chosen]}, but the config's sharing makes "
                "them one: import it with sharing 'none'"
            )
        stacked[chosen], names[chosen] = array, name
    return stacked


def _checked(
    values: Mapping[str, Any],
    name: str,
    parameter: Parameter,
    config: ModelConfig,
    format: Format,
    where: str,
) -> np.ndarray:
    """A tensor in our orientation, after checks of its shape and type."""
    array, shape = np.asarray(values[name]), axis_sizes(parameter, config)
    transposed = format.transposes(parameter)
    stored = shape[::-1] if transposed else shape
    if array.shape != stored:
        hint = " (it looks transposed)" if array.shape == stored[::-1] else ""
        raise CheckpointError(
            f"{where}: {name} has shape {list(array.shape)}, the config wants {list(stored)}{hint}:"
            " config and weights do not belong together"
        )
    if array.dtype.kind not in "fV" and str(array.dtype) != "bfloat16":
        raise CheckpointError(
            f"{where}: {name} has type {array.dtype}, not a floating-point type: save it as float32"
        )
    return array.T if transposed else array


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have the same bytes."""
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


# ---- configs -------------------------------------------------------------------------------------

CONFIG_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(ModelConfig)
    if field.name not in ("hidden_act", "sharing")
)
"""Fields of ModelConfig that both formats have under the same name."""


def config_entries(config: ModelConfig, format: Format) -> dict[str, Any]:
    """Entries of a foreign config.json that both formats have."""
    entries = {name: getattr(config, name) for name in CONFIG_FIELDS}
    entries["num_hidden_groups"] = num_groups(config, format)
    return entries | ({} if config.sharing == "all" else {"sharing": config.sharing})


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
    values: dict[str, Any] = {}
    for name in CONFIG_FIELDS:
        if name not in raw:
            if name in ("vocab_size", "hidden_size", "num_hidden_layers"):
                raise CheckpointError(f"{where}: {name} is missing: is it an ALBERT config?")
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


def read_with_noted_sharing(
    raw: Mapping[str, Any], config: ModelConfig, read: Callable[[ModelConfig], Params]
) -> tuple[ModelConfig, Params] | None:
    """Config and parameters with the sharing that our own export noted in a foreign config.

    None if there is no such note, or if the copies of a shared sublayer differ, because another
    program trained them: then the groups of the config hold.
    """
    noted = raw.get("sharing", "all")
    if noted not in ("attention", "ffn", "none"):
        return None
    shared = dataclasses.replace(config, sharing=noted, num_hidden_groups=1)
    try:
        return shared, read(shared)
    except CheckpointError:
        return None
