"""Reads the original program's structures, weights and batches into ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.model_io.tf1 import from_original


def structure(folder: Path) -> ModelConfig:
    """The ModelConfig of an albert_config.json."""
    raw = json.loads((folder / "albert_config.json").read_text())
    fields = {name: raw[name] for name in ModelConfig.__dataclass_fields__ if name in raw}
    acts = {"gelu": "gelu_new", "": "linear", None: "linear"}
    fields["hidden_act"] = acts.get(fields["hidden_act"], fields["hidden_act"])
    return ModelConfig(**fields)


def variables(arrays, prefix: str, config: ModelConfig) -> dict:
    """Our parameters of the arrays whose names begin with a prefix."""
    found = {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
    return from_original(found, config)


def batch_of(arrays, index=...) -> dict[str, np.ndarray]:
    """The original's batch as rows of ours."""
    get = {name: arrays[f"in/{name}"][index] for name in (
        "input_ids", "input_mask", "segment_ids", "masked_lm_positions", "masked_lm_ids",
        "masked_lm_weights", "next_sentence_labels",
    )}  # fmt: skip
    rows, length = get["input_ids"].shape
    return {
        "input_ids": get["input_ids"],
        "token_type_ids": get["segment_ids"],
        "segment_ids": get["input_mask"],
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "mlm_positions": get["masked_lm_positions"],
        "mlm_labels": get["masked_lm_ids"],
        "mlm_weights": get["masked_lm_weights"],
        "cls_positions": np.zeros((rows, 1), np.int32),
        "sop_labels": get["next_sentence_labels"],
        "sop_weights": np.ones((rows, 1), np.float32),
    }
