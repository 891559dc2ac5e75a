"""One table of every parameter: our path, the original's variable, Hugging Face's tensor.

Sources: modeling.py of google-research/albert, whose kernels are [inputs, outputs], and Hugging
Face's AlbertForPreTraining, whose Linear weights are [outputs, inputs].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albert_jax.config import ModelConfig
from albert_jax.model import sharing

Params = dict[str, Any]
"""Nested dict of arrays; joined by "/" its keys are the paths of the table."""

OPTIONAL_MODULES = ("pooler", "mlm_head", "sop_head")
"""Modules that a file may lack, because its model was saved for another purpose."""


@dataclass(frozen=True)
class Parameter:
    """One parameter under its three names, in which {g} and {i} are layer group and inner block."""

    path: str
    original: str
    huggingface: str
    dims: str
    """One letter per axis (see `axis_sizes`), without the leading axis of parameter sets."""

    @property
    def module(self) -> str:
        """What is present or absent as a whole: the body or an optional module."""
        top = self.path.split("/")[0]
        return top if top in OPTIONAL_MODULES else "body"

    @property
    def sublayer(self) -> str | None:
        """The sublayer, attention or ffn, of a parameter of the encoder; None for others."""
        parts = self.path.split("/")
        return parts[1] if parts[0] == "encoder" else None


_TF_BLOCK = "bert/encoder/transformer/group_{g}/inner_group_{i}/"
_HF_BLOCK = "albert.encoder.albert_layer_groups.{g}.albert_layers.{i}."
_LAYERS = (
    ("embeddings/layer_norm", "bert/embeddings/LayerNorm", "albert.embeddings.LayerNorm", "E"),
    (
        "embeddings/projection",
        "bert/encoder/embedding_hidden_mapping_in",
        "albert.encoder.embedding_hidden_mapping_in",
        "EH",
    ),
    *(
        (f"encoder/{path}", _TF_BLOCK + original, _HF_BLOCK + huggingface, dims)
        for path, original, huggingface, dims in (
            ("attention/query", "attention_1/self/query", "attention.query", "HH"),
            ("attention/key", "attention_1/self/key", "attention.key", "HH"),
            ("attention/value", "attention_1/self/value", "attention.value", "HH"),
            ("attention/output", "attention_1/output/dense", "attention.dense", "HH"),
            ("attention/layer_norm", "LayerNorm", "attention.LayerNorm", "H"),
            ("ffn/intermediate", "ffn_1/intermediate/dense", "ffn", "HF"),
            ("ffn/output", "ffn_1/intermediate/output/dense", "ffn_output", "FH"),
            ("ffn/layer_norm", "LayerNorm_1", "full_layer_layer_norm", "H"),
        )
    ),
    ("pooler", "bert/pooler/dense", "albert.pooler", "HH"),
    ("mlm_head/dense", "cls/predictions/transform/dense", "predictions.dense", "HE"),
    (
        "mlm_head/layer_norm",
        "cls/predictions/transform/LayerNorm",
        "predictions.LayerNorm",
        "E",
    ),
)
"""Dense layers (two letters) and LayerNorms (one letter)."""


def _embedding(name: str, dims: str) -> Parameter:
    path = f"embeddings/{name}/embedding"
    return Parameter(path, f"bert/embeddings/{name}", f"albert.embeddings.{name}.weight", dims)


def _layer(path: str, original: str, huggingface: str, dims: str) -> list[Parameter]:
    (main, bias), (their_main, their_bias) = (
        (("kernel", "bias"), ("kernel", "bias"))
        if len(dims) == 2
        else (("scale", "bias"), ("gamma", "beta"))
    )
    return [
        Parameter(f"{path}/{main}", f"{original}/{their_main}", f"{huggingface}.weight", dims),
        Parameter(f"{path}/{bias}", f"{original}/{their_bias}", f"{huggingface}.bias", dims[-1]),
    ]


_SOP_KERNEL = Parameter(
    "sop_head/kernel",
    "cls/seq_relationship/output_weights",
    "sop_classifier.classifier.weight",
    "H2",
)
TABLE: tuple[Parameter, ...] = (
    _embedding("word_embeddings", "VE"),
    _embedding("position_embeddings", "ME"),
    _embedding("token_type_embeddings", "TE"),
    *(parameter for layer in _LAYERS for parameter in _layer(*layer)),
    Parameter("mlm_head/bias", "cls/predictions/output_bias", "predictions.bias", "V"),
    _SOP_KERNEL,
    Parameter(
        "sop_head/bias", "cls/seq_relationship/output_bias", "sop_classifier.classifier.bias", "2"
    ),
)


def original_transposes(parameter: Parameter) -> bool:
    """Whether the original stores the transposed matrix."""
    return parameter is _SOP_KERNEL


def huggingface_transposes(parameter: Parameter) -> bool:
    """Whether Hugging Face stores the transposed matrix, as it does for every Linear."""
    return parameter.path.endswith("/kernel")


def parameters(config: ModelConfig) -> list[Parameter]:
    """The rows of the table that a model has; without a projection if E equals H."""
    projected = config.embedding_size != config.hidden_size
    return [p for p in TABLE if projected or not p.path.startswith("embeddings/projection/")]


def axis_sizes(parameter: Parameter, config: ModelConfig) -> tuple[int, ...]:
    """Shape of a parameter, without the leading axis of parameter sets."""
    sizes = {
        "V": config.vocab_size,
        "E": config.embedding_size,
        "H": config.hidden_size,
        "F": config.intermediate_size,
        "M": config.max_position_embeddings,
        "T": config.type_vocab_size,
        "2": 2,
    }
    return tuple(sizes[letter] for letter in parameter.dims)


def num_sets(config: ModelConfig, sublayer: str) -> int:
    """Number of parameter sets of a sublayer, the leading axis of its parameters."""
    return sharing.sets(config)[("attention", "ffn").index(sublayer)]


def native_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Our path -> shape, with the leading axis of parameter sets."""
    return {
        p.path: (*([num_sets(config, p.sublayer)] if p.sublayer else []), *axis_sizes(p, config))
        for p in parameters(config)
    }


def listed(names: list[str]) -> str:
    """Up to four names and the number of the others, with a verb, for messages."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(sorted(names)[:4]) + more + (" is" if len(names) == 1 else " are")
