"""Models of others: the published ALBERTs by their sizes, and relatives that are not ALBERT."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary

_VOCABULARY_SHA256 = "fefb02b667a6c5c2fe27602d28e5fb3428f66ab89c7d6f388e7c8d44a02d0336"
"""spiece.model of all English v1 and v2 models."""

_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "xlarge": (2048, 24, 16, 8192),
    "xxlarge": (4096, 12, 64, 16384),
}
"""hidden_size, num_hidden_layers, num_attention_heads, intermediate_size."""

_RELATIVES = (
    ("RoBERTa", ("roberta.", "roberta/")),
    ("DistilBERT", ("distilbert.", "distilbert/")),
    ("ELECTRA", ("electra", "discriminator_predictions", "generator_predictions")),
    ("DeBERTa", ("deberta",)),
    ("T5", ("shared.weight", "decoder.block.")),
    ("BERT", ("bert/encoder/layer_", "bert.encoder.layer.", "encoder.layer.")),
)
"""Other kinds of models, with beginnings of their tensors' names."""


def recognize(config: ModelConfig) -> str | None:
    """The published English model with these sizes ("ALBERT base v2"), or None.

    v1 has dropout 0.1 (xxlarge 0) and v2 has none, so v1 and v2 of xxlarge look alike.
    """
    sizes = (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    )
    usual = ModelConfig()
    same = all(
        getattr(config, name) == getattr(usual, name)
        for name in ("vocab_size", "embedding_size", "num_hidden_groups", "inner_group_num",
                     "max_position_embeddings", "type_vocab_size")
    )  # fmt: skip
    for name, known in _SIZES.items():
        if same and sizes == known:
            version = "v1" if config.hidden_dropout_prob else "v2"
            return f"ALBERT {name} " + ("v1 or v2" if name == "xxlarge" else version)
    return None


def is_published_vocabulary(vocabulary: Vocabulary) -> bool:
    """Whether it is the vocabulary of 30,000 tokens of the English models."""
    model = vocabulary.files().get("spiece.model", b"")
    return hashlib.sha256(model).hexdigest() == _VOCABULARY_SHA256


def relative(names: Iterable[str]) -> str | None:
    """The kind of model that has tensors of these names, if it is a known relative of ALBERT."""
    names = [name.removeprefix("module/") for name in names]
    if any("albert_layer_groups" in name or "/inner_group_" in name for name in names):
        return None
    for kind, beginnings in _RELATIVES:
        if any(name.startswith(beginnings) for name in names):
            return kind
    return None
