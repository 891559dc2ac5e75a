"""One table of every parameter: our path, the original's variable, Hugging Face's tensor.

Sources: modeling.py of google-research/albert, whose kernels are [inputs, outputs], and Hugging
Face's AlbertForPreTraining, whose Linear weights are [outputs, inputs].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from albert_jax.errors import CheckpointError

Params = dict[str, Any]
"""Nested dict of arrays; joined by "/" its keys are the paths of the table."""
WeightsFormat = Literal["native", "original", "huggingface"]
"""The names in use: our paths, the variables of the original, or the tensors of Hugging Face."""

OPTIONAL_MODULES = ("pooler", "mlm_head", "sop_head", "word_head")
"""Modules that a file may lack, because its model was saved for another purpose."""


@dataclass(frozen=True)
class Parameter:
    """One parameter under its three names, in which {g} and {i} are layer group and inner block."""

    path: str
    original: str
    huggingface: str

    @property
    def sublayer(self) -> str | None:
        """The sublayer, attention or ffn, of a parameter of the encoder; None for others."""
        parts = self.path.split("/")
        return parts[1] if parts[0] == "encoder" else None

    def is_transposed(self, format: WeightsFormat) -> bool:
        """Returns whether the format stores the transposed matrix (Hugging Face: every Linear)."""
        transposed = {"native": (), "original": "sop_head/kernel", "huggingface": "/kernel"}
        return self.path.endswith(transposed[format])


_TF_BLOCK = "bert/encoder/transformer/group_{g}/inner_group_{i}/"
_HF_BLOCK = "albert.encoder.albert_layer_groups.{g}.albert_layers.{i}."
_LAYERS = (
    ("embeddings/layer_norm", "bert/embeddings/LayerNorm", "albert.embeddings.LayerNorm"),
    (
        "embeddings/projection",
        "bert/encoder/embedding_hidden_mapping_in",
        "albert.encoder.embedding_hidden_mapping_in",
    ),
    *(
        (f"encoder/{path}", _TF_BLOCK + original, _HF_BLOCK + huggingface)
        for path, original, huggingface in (
            ("attention/query", "attention_1/self/query", "attention.query"),
            ("attention/key", "attention_1/self/key", "attention.key"),
            ("attention/value", "attention_1/self/value", "attention.value"),
            ("attention/output", "attention_1/output/dense", "attention.dense"),
            ("attention/layer_norm", "LayerNorm", "attention.LayerNorm"),
            ("ffn/intermediate", "ffn_1/intermediate/dense", "ffn"),
            ("ffn/output", "ffn_1/intermediate/output/dense", "ffn_output"),
            ("ffn/layer_norm", "LayerNorm_1", "full_layer_layer_norm"),
        )
    ),
    ("pooler", "bert/pooler/dense", "albert.pooler"),
    ("mlm_head/dense", "cls/predictions/transform/dense", "predictions.dense"),
    ("mlm_head/layer_norm", "cls/predictions/transform/LayerNorm", "predictions.LayerNorm"),
)
"""Dense layers and LayerNorms."""


def _layer(path: str, original: str, huggingface: str) -> list[Parameter]:
    norm = path.endswith("layer_norm")
    ours, theirs = (("scale", "bias"), ("gamma", "beta")) if norm else (("kernel", "bias"),) * 2
    return [
        Parameter(f"{path}/{leaf}", f"{original}/{variable}", f"{huggingface}.{tensor}")
        for leaf, variable, tensor in zip(ours, theirs, ("weight", "bias"), strict=True)
    ]


_SOP, _CLASSIFIER = "cls/seq_relationship/output_", "sop_classifier.classifier."
TABLE: tuple[Parameter, ...] = (
    *(
        Parameter(
            f"embeddings/{x}/embedding", f"bert/embeddings/{x}", f"albert.embeddings.{x}.weight"
        )
        for x in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    ),
    *(parameter for layer in _LAYERS for parameter in _layer(*layer)),
    Parameter("mlm_head/bias", "cls/predictions/output_bias", "predictions.bias"),
    Parameter("sop_head/kernel", f"{_SOP}weights", f"{_CLASSIFIER}weight"),
    Parameter("sop_head/bias", f"{_SOP}bias", f"{_CLASSIFIER}bias"),
    # The other formats do not know this head; these are the names of PL-BERT.
    Parameter("word_head/kernel", "word_predictor/kernel", "word_predictor.weight"),
    Parameter("word_head/bias", "word_predictor/bias", "word_predictor.bias"),
)


def check_names(names: Iterable[str], expected: Mapping[str, str], where: str) -> None:
    """Raises CheckpointError unless the names of a file's tensors are the expected ones.

    `expected` maps each name to our path; all names of an optional module may be absent.
    """
    stored = set(names)
    modules = {name: path.split("/")[0] for name, path in expected.items()}
    absent = set(OPTIONAL_MODULES) - {modules[name] for name in stored & set(modules)}
    missing = [name for name in modules if name not in stored and modules[name] not in absent]
    if missing:
        raise CheckpointError(
            f"{where}: {_listed(missing)} missing: is it a complete ALBERT with its own config?"
        )
    if unexpected := sorted(stored - set(expected)):
        raise CheckpointError(
            f"{where}: {_listed(unexpected)} not expected: give the config of this model; of a "
            "fine-tuned one name the run, or the model that it began with"
        )


def _listed(names: list[str]) -> str:
    """Up to four names and the number of the others, with a verb."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(sorted(names)[:4]) + more + (" is" if len(names) == 1 else " are")
