"""One table of every parameter: our path, the original's variable, Hugging Face's tensor.

Sources: modeling.py of google-research/albert (variable names, [in, out] kernels) and Hugging
Face's AlbertForPreTraining (Linear weights are [out, in]). Letters of ``dims``: V vocabulary, E
embedding size, H hidden size, F intermediate size, M position rows, T token types, 2 itself.
Encoder leaves of ours carry a leading axis of parameter sets that ``dims`` leaves out.

Both foreign formats know groups of layers only. A model whose sharing they cannot say (attention
only, FFN only, none) is written with one group per layer, shared sublayers being repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.errors import CheckpointError
from albert_jax.model import sharing
from albert_jax.tree import flatten, unflatten

Params = dict[str, Any]
"""Nested dict of arrays, paths joined by "/" (see the table below)."""


@dataclass(frozen=True)
class Name:
    """One parameter under its three names; {g} and {i} are group and inner block."""

    path: str
    original: str
    huggingface: str
    dims: str
    original_swaps: bool = False
    """The original stores the transposed matrix (the SOP head only)."""

    @property
    def huggingface_swaps(self) -> bool:
        """Hugging Face stores the transposed matrix (every Linear)."""
        return self.path.endswith("/kernel")

    @property
    def unit(self) -> str:
        """What is present or absent as a whole: body, pooler, mlm_head, sop_head."""
        top = self.path.split("/")[0]
        return top if top in OPTIONAL_UNITS else "body"

    @property
    def sublayer(self) -> str | None:
        """Attention or ffn for encoder leaves, else None."""
        parts = self.path.split("/")
        return parts[1] if parts[0] == "encoder" else None


OPTIONAL_UNITS = ("pooler", "mlm_head", "sop_head")
"""Parts that a foreign file may lack as a whole, because it was saved for another purpose."""

_OUR_BLOCK = "encoder/"
_TF_BLOCK = "bert/encoder/transformer/group_{g}/inner_group_{i}/"
_HF_BLOCK = "albert.encoder.albert_layer_groups.{g}.albert_layers.{i}."


def _dense(path: str, original: str, hf: str, dims: str) -> list[Name]:
    return [
        Name(f"{path}/kernel", f"{original}/kernel", f"{hf}.weight", dims),
        Name(f"{path}/bias", f"{original}/bias", f"{hf}.bias", dims[1]),
    ]


def _norm(path: str, original: str, hf: str, dims: str) -> list[Name]:
    return [
        Name(f"{path}/scale", f"{original}/gamma", f"{hf}.weight", dims),
        Name(f"{path}/bias", f"{original}/beta", f"{hf}.bias", dims),
    ]


def _table(kind: str, dims: str) -> Name:
    return Name(
        f"embeddings/{kind}/embedding",
        f"bert/embeddings/{kind}",
        f"albert.embeddings.{kind}.weight",
        dims,
    )


def _block(ours: str, tf: str, hf: str, dims: str) -> list[Name]:
    rule = _norm if len(dims) == 1 else _dense
    return rule(_OUR_BLOCK + ours, _TF_BLOCK + tf, _HF_BLOCK + hf, dims)


TABLE: tuple[Name, ...] = (
    _table("word_embeddings", "VE"),
    _table("position_embeddings", "ME"),
    _table("token_type_embeddings", "TE"),
    *_norm(
        "embeddings/layer_norm", "bert/embeddings/LayerNorm", "albert.embeddings.LayerNorm", "E"
    ),
    *_dense(
        "embeddings/projection",
        "bert/encoder/embedding_hidden_mapping_in",
        "albert.encoder.embedding_hidden_mapping_in",
        "EH",
    ),
    *_block("attention/query", "attention_1/self/query", "attention.query", "HH"),
    *_block("attention/key", "attention_1/self/key", "attention.key", "HH"),
    *_block("attention/value", "attention_1/self/value", "attention.value", "HH"),
    *_block("attention/output", "attention_1/output/dense", "attention.dense", "HH"),
    *_block("attention/layer_norm", "LayerNorm", "attention.LayerNorm", "H"),
    *_block("ffn/intermediate", "ffn_1/intermediate/dense", "ffn", "HF"),
    *_block("ffn/output", "ffn_1/intermediate/output/dense", "ffn_output", "FH"),
    *_block("ffn/layer_norm", "LayerNorm_1", "full_layer_layer_norm", "H"),
    *_dense("pooler", "bert/pooler/dense", "albert.pooler", "HH"),
    *_dense("mlm_head/dense", "cls/predictions/transform/dense", "predictions.dense", "HE"),
    *_norm(
        "mlm_head/layer_norm",
        "cls/predictions/transform/LayerNorm",
        "predictions.LayerNorm",
        "E",
    ),
    Name("mlm_head/bias", "cls/predictions/output_bias", "predictions.bias", "V"),
    Name(
        "sop_head/kernel",
        "cls/seq_relationship/output_weights",
        "sop_classifier.classifier.weight",
        "H2",
        original_swaps=True,
    ),
    Name(
        "sop_head/bias", "cls/seq_relationship/output_bias", "sop_classifier.classifier.bias", "2"
    ),
)


def sizes(config: ModelConfig) -> dict[str, int]:
    """The letters of ``dims`` for one model."""
    return {
        "V": config.vocab_size,
        "E": config.embedding_size,
        "H": config.hidden_size,
        "F": config.intermediate_size,
        "M": config.max_position_embeddings,
        "T": config.type_vocab_size,
        "2": 2,
    }


def entries(config: ModelConfig) -> list[Name]:
    """The rows of the table that a model of ours has (E == H: no projection)."""
    equal = config.embedding_size == config.hidden_size
    return [n for n in TABLE if not (equal and n.path.startswith("embeddings/projection/"))]


def native_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our path -> shape, leading axis of parameter sets included."""
    letters = sizes(config)
    shapes = {}
    for name in entries(config):
        shape = tuple(letters[d] for d in name.dims)
        if name.sublayer:
            shape = (set_count(config, name.sublayer), *shape)
        shapes[name.path] = shape
    return shapes


# --- which parameter set a pass uses -------------------------------------------------------------


def original_group(layer: int, layers: int, groups: int) -> int:
    """Group of a layer in modeling.py, in its floating-point form (ours too, sharing.py)."""
    return int(layer / layers * groups)


def huggingface_group(layer: int, layers: int, groups: int) -> int:
    """Group of a layer in Transformers, whose rounding differs in rare cases (L 22, G 22)."""
    return int(layer / (layers / groups))


def set_count(config: ModelConfig, sublayer: str) -> int:
    """n: parameter sets of a sublayer's stacked leaves."""
    attention, ffn = sharing.sets(config)
    return attention if sublayer == "attention" else ffn


def set_table(config: ModelConfig, sublayer: str) -> tuple[int, ...]:
    """Parameter set of each pass, layer by layer and inner block by inner block."""
    return getattr(sharing.table(config), sublayer)


GroupRule = Callable[[int, int, int], int]


def as_groups(config: ModelConfig, rule: GroupRule) -> bool:
    """Whether a foreign format says this sharing with the groups as they are."""
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    return config.sharing == "all" and all(
        original_group(layer, layers, groups) == rule(layer, layers, groups)
        for layer in range(layers)
    )


def foreign_groups(config: ModelConfig, rule: GroupRule) -> int:
    """Number of groups a foreign format needs: ours, else one per layer.

    Raises CheckpointError where its rounding would give two layers one group.
    """
    layers = config.num_hidden_layers
    if as_groups(config, rule):
        return config.num_hidden_groups
    if any(rule(layer, layers, layers) != layer for layer in range(layers)):
        raise CheckpointError(
            f"a model of {layers} layers with sharing {config.sharing!r} and "
            f"{config.num_hidden_groups} groups cannot be written in this format, whose rounding "
            "gives two layers one group: export another format"
        )
    return layers


def _blocks(config: ModelConfig, sublayer: str, rule: GroupRule) -> dict[tuple[int, int], int]:
    """(group, inner) of the foreign format -> our parameter set."""
    inner = config.inner_group_num
    keys = [(g, i) for g in range(foreign_groups(config, rule)) for i in range(inner)]
    if as_groups(config, rule):
        return {(g, i): g * inner + i for g, i in keys}
    table = set_table(config, sublayer)
    return {(g, i): table[g * inner + i] for g, i in keys}


# --- to and from ----------------------------------------------------------------------------------


def to_original(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under the original's variable names (views, nothing is copied).

    Raises CheckpointError where the original's group rule cannot say this sharing.
    """
    return _write(params, config, original_group, lambda n: (n.original, n.original_swaps))


def from_original(values: Mapping[str, Any], config: ModelConfig, where: str = "weights") -> Params:
    """Variables of the original -> our parameters (types as they come).

    Optimizer slots (adam_m, adam_v) and global_step are passed over; a TF-Hub ``module/`` prefix
    is understood. Raises CheckpointError naming what is missing, unexpected or misshapen.
    """
    known = {
        name.removeprefix("module/"): name
        for name in values
        if name != "global_step" and not name.endswith(("/adam_m", "/adam_v"))
    }
    return _read(
        values, known, config, original_group, lambda n: (n.original, n.original_swaps), where
    )


def to_huggingface(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under the names of AlbertForPreTraining (views, nothing is copied).

    E == H gets the identity projection that Hugging Face always has; the tied decoder is left
    out, as Transformers does on saving.
    """
    tensors = _write(
        params, config, huggingface_group, lambda n: (n.huggingface, n.huggingface_swaps)
    )
    if config.embedding_size == config.hidden_size:
        dtype = np.asarray(params["embeddings"]["word_embeddings"]["embedding"]).dtype
        tensors[_HF_PROJECTION + "weight"] = np.eye(config.hidden_size, dtype=dtype)
        tensors[_HF_PROJECTION + "bias"] = np.zeros(config.hidden_size, dtype)
    return tensors


def from_huggingface(
    values: Mapping[str, Any], config: ModelConfig, where: str = "weights"
) -> Params:
    """Tensors of a Hugging Face ALBERT -> our parameters (types as they come).

    Copies of the tied decoder must equal what they are tied to. Raises CheckpointError naming
    what is missing, unexpected or misshapen.
    """
    known = prefixed(values)
    known.pop("albert.embeddings.position_ids", None)
    known = _untie(values, known, where)
    if config.embedding_size == config.hidden_size:
        _drop_identity(values, known, config, where)
    return _read(
        values,
        known,
        config,
        huggingface_group,
        lambda n: (n.huggingface, n.huggingface_swaps),
        where,
    )


def prefixed(values: Iterable[str]) -> dict[str, str]:
    """Name as in the table -> name as it stands: AlbertModel saves its own without "albert."."""
    listed = list(values)
    bare = not any(name.startswith("albert.") for name in listed)
    body = ("embeddings.", "encoder.", "pooler.")
    return {("albert." + n if bare and n.startswith(body) else n): n for n in listed}


_HF_PROJECTION = "albert.encoder.embedding_hidden_mapping_in."
Spelling = Callable[[Name], tuple[str, bool]]


def _write(
    params: Mapping[str, Any], config: ModelConfig, rule: GroupRule, spell: Spelling
) -> dict[str, np.ndarray]:
    flat, found = flatten(params), {}
    for name in entries(config):
        if name.path not in flat:
            if name.unit in OPTIONAL_UNITS and name.unit not in params:
                continue
            raise CheckpointError(f"parameter {name.path} is missing: nothing was written")
        array = np.asarray(flat[name.path])
        target, swaps = spell(name)
        if name.sublayer is None:
            found[target] = array.T if swaps else array
            continue
        for (g, i), index in _blocks(config, name.sublayer, rule).items():
            part = array[index]
            found[target.format(g=g, i=i)] = part.T if swaps else part
    return found


def _read(
    values: Mapping[str, Any],
    known: dict[str, str],
    config: ModelConfig,
    rule: GroupRule,
    spell: Spelling,
    where: str,
) -> Params:
    """`known`: name as in the table -> name in `values` (read one at a time: they may be lazy)."""
    letters, flat, used, missing = sizes(config), {}, set(), []
    for name in entries(config):
        target, swaps = spell(name)
        shape = tuple(letters[d] for d in name.dims)
        if name.sublayer is None:
            spots, count = {target: 0}, 0
        else:
            blocks = _blocks(config, name.sublayer, rule)
            spots = {target.format(g=g, i=i): index for (g, i), index in blocks.items()}
            count = set_count(config, name.sublayer)
        absent = [spot for spot in spots if spot not in known]
        if absent:
            missing += [(name.unit, spot) for spot in absent]
            continue
        used |= set(spots)
        stacked: np.ndarray | None = None
        filled: dict[int, str] = {}
        for spot, index in spots.items():
            array = _checked(values[known[spot]], spot, shape, swaps, where)
            if not count:
                stacked = np.ascontiguousarray(array)
                break
            if stacked is None:
                stacked = np.zeros((count, *shape), array.dtype)
            if index in filled and not _same_bits(stacked[index], array):
                raise CheckpointError(
                    f"{where}: {spot} differs from {filled[index]}, but sharing "
                    f"{config.sharing!r} makes them one: import it with sharing 'none'"
                )
            stacked[index] = array
            filled[index] = spot
        flat[name.path] = stacked
    _complain(missing, [n for n in known if n not in used], flat, where)
    return unflatten(flat)


def _checked(value: Any, spot: str, shape: tuple[int, ...], swaps: bool, where: str) -> np.ndarray:
    array = np.asarray(value)
    stored = shape[::-1] if swaps else shape
    if array.shape != stored:
        hint = " (it looks transposed)" if array.shape == stored[::-1] else ""
        raise CheckpointError(
            f"{where}: {spot} has shape {list(array.shape)}, the config wants {list(stored)}{hint}:"
            " config and weights do not belong together"
        )
    if array.dtype.kind not in "fV" and str(array.dtype) != "bfloat16":
        raise CheckpointError(
            f"{where}: {spot} has type {array.dtype}, not a floating-point type: save it as float32"
        )
    return array.T if swaps else array


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def _complain(
    missing: list[tuple[str, str]], extra: list[str], flat: Mapping[str, Any], where: str
) -> None:
    """A unit may be absent as a whole; anything else that does not match is named."""
    present = {path.split("/")[0] for path in flat}
    gone = [spot for unit, spot in missing if unit == "body" or unit in present]
    if gone:
        raise CheckpointError(
            f"{where}: {_some(gone)} missing: is it an ALBERT saved whole, with its own config?"
        )
    if extra:
        raise CheckpointError(
            f"{where}: {_some(extra)} not expected: the config describes another model, or the "
            "file holds the head of a fine-tuned one: give the pretraining model, or to predict "
            "the run folder"
        )


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more + (" is" if len(listed) == 1 else " are")


def _untie(values: Mapping[str, Any], known: dict[str, str], where: str) -> dict[str, str]:
    """Drops copies of tied tensors after comparing them with what they are tied to."""
    known = dict(known)
    ties = {
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    }
    for copy, owner in ties.items():
        if copy not in known:
            continue
        if owner not in known:
            known[owner] = known.pop(copy)
        elif not _same_bits(np.asarray(values[known[copy]]), np.asarray(values[known[owner]])):
            raise CheckpointError(
                f"{where}: {copy} differs from {owner}: ALBERT ties them, this model does not"
            )
        else:
            del known[copy]
    return known


def _drop_identity(
    values: Mapping[str, Any], known: dict[str, str], config: ModelConfig, where: str
) -> None:
    """E == H: we and the original have no projection, so only an identity may stand there."""
    weight, bias = (
        known.pop(_HF_PROJECTION + "weight", None),
        known.pop(_HF_PROJECTION + "bias", None),
    )
    size = config.hidden_size
    if weight is not None and not np.array_equal(values[weight], np.eye(size)):
        raise CheckpointError(
            f"{where}: {_HF_PROJECTION}weight is not the identity, but embedding_size equals "
            f"hidden_size ({size}), where ALBERT has no projection: this model cannot be expressed"
        )
    if bias is not None and np.any(np.asarray(values[bias])):
        raise CheckpointError(
            f"{where}: {_HF_PROJECTION}bias is not zero, but embedding_size equals hidden_size "
            f"({size}), where ALBERT has no projection: this model cannot be expressed"
        )


# --- what is it -----------------------------------------------------------------------------------

_OTHERS = (
    ("roberta", ("roberta.", "roberta/")),
    ("DistilBERT", ("distilbert.", "distilbert/")),
    ("ELECTRA", ("electra", "discriminator_predictions", "generator_predictions")),
    ("DeBERTa", ("deberta",)),
    ("T5", ("shared.weight", "decoder.block.")),
    ("BERT", ("bert/encoder/layer_", "bert.encoder.layer.", "encoder.layer.")),
)


def other_model(names: Iterable[str]) -> str | None:
    """The kind of model these names belong to when it is a known one other than ALBERT."""
    listed = list(names)
    if any("albert_layer_groups" in n or "/inner_group_" in n for n in listed):
        return None
    for kind, marks in _OTHERS:
        if any(n.removeprefix("module/").startswith(marks) for n in listed):
            return "RoBERTa" if kind == "roberta" else kind
    return None
