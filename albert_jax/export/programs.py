"""The network with a head as one function from ids to outputs: what the graph formats hold.

Inputs have Transformers' names: input_ids, token_type_ids and attention_mask (1: text, 0:
padding), with axes "batch" and "length", and "choices" between them for multiple choice. Outputs
have Transformers' names too, where it has the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ComputeConfig, Config
from albert_jax.errors import CheckpointError
from albert_jax.export.transformers_classes import HEADS, Head
from albert_jax.model import albert
from albert_jax.tasks import registry
from albert_jax.tasks.encoder import Encoder
from albert_jax.tasks.task import Axes

EXACT = ComputeConfig(dtype="float32", attention="xla")
"""Graphs compute in float32 with plain matrix products."""


@dataclass(frozen=True)
class Program:
    """One function of (parameters, inputs), and the axes of what goes in and comes out."""

    kind: str
    """Name of a head (pretraining, mlm, base) or of a task."""
    inputs: dict[str, Axes]
    """All int32 (ONNX: int64), but for p_mask, which is float32."""
    outputs: dict[str, Axes]
    """All float32, but for names that end in _positions, which are int32 (ONNX: int64)."""
    call: Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, jax.Array]]
    shortest: int = 1
    """Least length of a row: the search of SQuAD 2.0 takes the best of that many places."""


def program(run_config: Config, params: Mapping[str, Any], head: Head | None) -> Program:
    """The program of a model: with the named head, else its task's, else pretraining's.

    Raises CheckpointError where the parameters lack a part that the head needs.
    """
    config = run_config.task if head is None else None
    if config is None:
        return _pretrained_program(run_config, params, head or "pretraining")
    task, model = registry.get(config.name), run_config.model
    _check_modules(params, task.pretrained_modules(config), config.name)
    outputs = task.graph_outputs(config, model)
    encoder = Encoder(model, EXACT)

    def call(params: Mapping[str, Any], inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = task.outputs(encoder, params, _batch(inputs), config)
        arrays = found if isinstance(found, tuple) else (found,)
        return dict(zip(outputs, arrays, strict=True))

    return Program(
        config.name, task.graph_inputs(config), outputs, call, task.shortest_length(config)
    )


def _pretrained_program(run_config: Config, params: Mapping[str, Any], head: Head) -> Program:
    model = run_config.model
    _check_modules(params, HEADS[head].modules, head)
    tokens: Axes = ("batch", "length")
    outputs: dict[Head, dict[str, Axes]] = {
        "pretraining": {
            "prediction_logits": (*tokens, model.vocab_size),
            "sop_logits": ("batch", 2),
        },
        "mlm": {"logits": (*tokens, model.vocab_size)},
        "base": {
            "last_hidden_state": (*tokens, model.hidden_size),
            "pooler_output": ("batch", model.hidden_size),
        },
    }

    def call(params: Mapping[str, Any], inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        batch = _batch(inputs)
        hidden = albert.encode(params, model, batch, compute=EXACT)
        if head == "mlm":
            return {"logits": albert.mlm_logits(params, model, hidden, batch["mlm_positions"])}
        pooled = albert.pooled(params, model, hidden, batch["cls_positions"])
        if head == "base":
            return {"last_hidden_state": hidden, "pooler_output": pooled[:, 0]}
        return {
            "prediction_logits": albert.mlm_logits(params, model, hidden, batch["mlm_positions"]),
            "sop_logits": albert.sop_logits(params, model, pooled)[:, 0],
        }

    inputs: dict[str, Axes] = dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), tokens
    )
    return Program(head, inputs, outputs[head], call)


def _check_modules(params: Mapping[str, Any], modules: tuple[str, ...], name: str) -> None:
    missing = [module for module in modules if module not in params]
    if missing:
        raise CheckpointError(
            f"the weights have no {' and no '.join(missing)}, which {name} needs: "
            "export another head"
        )


def _batch(inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Rows as our heads read them, of the inputs of a program."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    places = jax.lax.broadcasted_iota(jnp.int32, ids.shape, ids.ndim - 1)
    batch = {
        "input_ids": ids,
        "token_type_ids": inputs["token_type_ids"],
        "segment_ids": mask,
        "positions": places,
        "mlm_positions": places,
        "cls_positions": jnp.zeros((*ids.shape[:-1], 1), jnp.int32),
    }
    if ids.ndim == 3:
        batch["choice_mask"] = (mask[:, :, 0] > 0).astype(jnp.float32)
    if "p_mask" in inputs:
        batch["p_mask"] = inputs["p_mask"]
    return batch
