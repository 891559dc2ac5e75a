"""ALBERT (Lan et al. 2019) in JAX: pretraining, evaluation, export, fine-tuning.

The public names are those of `albert_jax.api`, loaded when they are first used, so importing
the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from albert_jax.version import __version__

if TYPE_CHECKING:
    from albert_jax.api import (
        Config,
        Model,
        ModelConfig,
        PhaseConfig,
        batches,
        dropout_keys,
        encode,
        fill_mask,
        init,
        load,
        mlm_logits,
        pooled,
        pretraining_loss,
        rows,
        save,
        sop_logits,
    )

__all__ = [
    "Config",
    "Model",
    "ModelConfig",
    "PhaseConfig",
    "__version__",
    "batches",
    "dropout_keys",
    "encode",
    "fill_mask",
    "init",
    "load",
    "mlm_logits",
    "pooled",
    "pretraining_loss",
    "rows",
    "save",
    "sop_logits",
]


def __getattr__(name: str) -> Any:
    """A public name, imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'albert_jax' has no attribute {name!r}")
    return getattr(importlib.import_module("albert_jax.api"), name)
