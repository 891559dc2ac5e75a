"""Checkpoints of brightmart/albert_zh, whose variables are those of a BERT with one shared layer.

There a token's embedding is multiplied by a matrix E x H before positions, types and LayerNorm,
which have width H; the original adds and normalizes in E and projects afterwards. The model is
expressed with E = H: the product of both matrices is its table of embeddings, and there is no
projection. The output layer uses the same product, so every value is that of albert_zh, but for
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albert_jax.errors import CheckpointError
from albert_jax.model_io.weights import LazyTensors

_WORDS = "bert/embeddings/word_embeddings"
PROJECTION = f"{_WORDS}_2"
"""The variable that only these checkpoints have."""
_LAYER, _BLOCK = "bert/encoder/layer_shared/", "bert/encoder/transformer/group_0/inner_group_0/"
_SUBLAYERS = {
    "attention/self/": "attention_1/self/",
    "attention/output/dense/": "attention_1/output/dense/",
    "attention/output/LayerNorm/": "LayerNorm/",
    "intermediate/dense/": "ffn_1/intermediate/dense/",
    "output/dense/": "ffn_1/intermediate/output/dense/",
    "output/LayerNorm/": "LayerNorm_1/",
}
"""Beginnings of names in the layer: theirs, and the original's."""


def as_original(variables: Mapping[str, Any], where: str) -> LazyTensors:
    """The variables as the original names them, with embeddings of width H.

    Raises CheckpointError if the two matrices of the embeddings do not fit each other.
    """

    def read(name: str) -> np.ndarray:
        if name != _WORDS:
            return variables[name]
        table, projection = np.float64(variables[name]), np.float64(variables[PROJECTION])
        if table.ndim != 2 or projection.ndim != 2 or table.shape[1] != len(projection):
            raise CheckpointError(
                f"{where}: {_WORDS} {list(table.shape)} cannot be multiplied by {PROJECTION} "
                f"{list(projection.shape)}: copy the checkpoint again"
            )
        return (table @ projection).astype(np.float32)

    names = {_original(name): name for name in variables if not name.startswith(PROJECTION)}
    return LazyTensors(names, read)


def _original(name: str) -> str:
    inner = name.removeprefix(_LAYER)
    for theirs, original in _SUBLAYERS.items():
        if inner != name and inner.startswith(theirs):
            return _BLOCK + original + inner.removeprefix(theirs)
    return name
