"""The weights that a folder or file holds, in our form, and what is checked about them."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from albert_jax.config import Config, ModelConfig, PhaseConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError
from albert_jax.model_io.parameter_names import Params
from albert_jax.tree import flatten


class LazyTensors(UserDict[str, Any]):
    """Tensors that are read when they are needed; `keys` are the arguments of `read`."""

    def __init__(self, keys: Mapping[str, Any], read: Callable[[Any], np.ndarray]) -> None:
        super().__init__(keys)
        self._read = read

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read(self.data[name])


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The contents of a folder or file. Optional modules that it lacks are absent."""

    config: ModelConfig
    params: Params
    """Nested dict of float32 arrays."""
    format: Literal["native", "huggingface", "tf1", "plbert"]
    vocabulary: Vocabulary | None = None
    run_config: Config | None = None
    """The config of the training, if it is known."""
    fingerprint: str | None = None
    """Fingerprint of the training's vocabulary, if it came with the weights."""


def default_config(model: ModelConfig) -> Config:
    """A complete config around a model whose training config is unknown."""
    phase = PhaseConfig(sequence_length=min(512, model.max_position_embeddings))
    return Config(model=model, phases=(phase,))


def check_vocabulary(vocabulary: Vocabulary | None, config: ModelConfig) -> None:
    """Raises CheckpointError if the vocabulary has another size than the embeddings."""
    if vocabulary is not None and vocabulary.size != config.vocab_size:
        raise CheckpointError(
            f"the vocabulary has {vocabulary.size} tokens, the model {config.vocab_size}: give the "
            "vocabulary that the model was trained with"
        )


def check_finite(params: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError naming the first parameter with a NaN or an infinity."""
    for path, value in flatten(params).items():
        if not np.isfinite(np.asarray(value)).all():
            raise CheckpointError(f"{where}: {path} holds NaN or infinity: take an earlier step")


def check_modules(params: Mapping[str, Any], modules: tuple[str, ...], needed_by: str) -> None:
    """Raises CheckpointError if the parameters lack a module that a head or class needs."""
    missing = [module for module in modules if module not in params]
    if missing:
        raise CheckpointError(
            f"the weights have no {' and no '.join(missing)}, which {needed_by} needs: "
            "export another head"
        )
