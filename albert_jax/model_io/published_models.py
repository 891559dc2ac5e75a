"""The published models: recognised by their sizes, and their vocabulary by its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from albert_jax.data.vocabularies.vocabulary import Vocabulary

VOCABULARY_SHA256 = "fefb02b667a6c5c2fe27602d28e5fb3428f66ab89c7d6f388e7c8d44a02d0336"
"""spiece.model of all English v1 and v2 models."""

_SIZES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "xlarge": (2048, 24, 16, 8192),
    "xxlarge": (4096, 12, 64, 16384),
}


def recognise(config: Mapping[str, Any]) -> str | None:
    """The published English model with these sizes ("ALBERT base v2"), or None.

    v1 had dropout 0.1 (xxlarge: 0) and v2 has none, so v1 and v2 of xxlarge look alike.
    """
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = tuple(config.get(key) for key in keys)
    usual = {
        "vocab_size": 30000,
        "embedding_size": 128,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    }
    if any(config.get(key, value) != value for key, value in usual.items()):
        return None
    for name, known in _SIZES.items():
        if sizes == known:
            if name == "xxlarge":
                return "ALBERT xxlarge v1 or v2"
            return f"ALBERT {name} {'v1' if config.get('hidden_dropout_prob') else 'v2'}"
    return None


def is_published_vocabulary(vocabulary: Vocabulary | None) -> bool:
    """Whether it is the 30,000-piece vocabulary of the English models."""
    if vocabulary is None:
        return False
    model = vocabulary.files().get("spiece.model", b"")
    return hashlib.sha256(model).hexdigest() == VOCABULARY_SHA256
