"""The network with a head as one function from ids to outputs, which graph formats hold.

Inputs have Transformers' names: input_ids, token_type_ids and attention_mask (1 for text, 0 for
padding). Outputs have Transformers' names too, where it has the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.export import Head
from albert_jax.model import albert
from albert_jax.model.albert import FLOAT32
from albert_jax.model_io.model import Model
from albert_jax.model_io.weights import check_modules
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.transformers_class import TransformersClass
from albert_jax.tasks.task import AnyTask, Axes, Task

HEADS: dict[Head, TransformersClass] = {
    "pretraining": TransformersClass(
        name="AlbertForPreTraining",
        modules=("pooler", "mlm_head", "sop_head"),
        pipeline="fill-mask",
    ),
    "mlm": TransformersClass(name="AlbertForMaskedLM", modules=("mlm_head",), pipeline="fill-mask"),
    "base": TransformersClass(name="AlbertModel", modules=("pooler",)),
}
"""The heads of a pretrained model as classes of Transformers."""
_ROWS: Axes = ("batch", "length")
Inputs = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Program:
    """One function of (parameters, inputs), and the axes of its inputs and outputs."""

    kind: str
    """Name of a head (pretraining, mlm, base) or of a task."""
    inputs: dict[str, Axes]
    """All are int32 (ONNX: int64), but for p_mask, which is float32."""
    outputs: dict[str, Axes]
    """All are float32, but for names that end in "_positions", which are int32 (ONNX: int64)."""
    call: Callable[[Mapping[str, Any], Inputs], dict[str, jax.Array]]
    shortest_length: int = 1
    """Fewest tokens of a row."""


def exported_task(model: Model, head: Head | None) -> AnyTask | None:
    """The task of a fine-tuned model, unless a head of pretraining is named."""
    config = model.run_config.task
    return None if head is not None or config is None else registry.create(config)


def transformers_class(head: Head | None, task: AnyTask | None) -> TransformersClass:
    """The class of the named head, or else of the task, or else of pretraining.

    Raises ConfigError for a task whose head no class of Transformers has.
    """
    return HEADS[head or "pretraining"] if task is None else task.transformers_class()


def program(model: Model, head: Head | None) -> Program:
    """The program with the named head, or else that of the task, or else that of pretraining.

    Raises CheckpointError if the parameters lack a module that the head needs.
    """
    task = exported_task(model, head)
    if task is None:
        return _pretrained(model, head or "pretraining")
    check_modules(model.params, task.pretrained_modules(), task.name)
    outputs, encoder = task.graph_outputs(model.config), Encoder(model.config, FLOAT32)

    def call(params: Mapping[str, Any], inputs: Inputs) -> dict[str, jax.Array]:
        arrays = task.outputs(encoder.bind(params), _batch(inputs))
        arrays = arrays if isinstance(arrays, tuple) else (arrays,)
        return dict(zip(outputs, arrays, strict=True))

    return Program(task.name, task.graph_inputs, outputs, call, task.shortest_length)


def _pretrained(model: Model, head: Head) -> Program:
    config = model.config
    check_modules(model.params, HEADS[head].modules, head)
    vocabulary = (*_ROWS, config.vocab_size)
    outputs: dict[Head, dict[str, Axes]] = {
        "pretraining": {"prediction_logits": vocabulary, "sop_logits": ("batch", 2)},
        "mlm": {"logits": vocabulary},
        "base": {
            "last_hidden_state": (*_ROWS, config.hidden_size),
            "pooler_output": ("batch", config.hidden_size),
        },
    }

    def call(params: Mapping[str, Any], inputs: Inputs) -> dict[str, jax.Array]:
        batch = _batch(inputs)
        hidden = albert.encode(params, config, batch, compute=FLOAT32)
        if head == "mlm":
            return {"logits": albert.mlm_logits(params, config, hidden, batch["mlm_positions"])}
        pooled = albert.pooler_output(params, config, hidden, batch)
        if head == "base":
            return {"last_hidden_state": hidden, "pooler_output": pooled[:, 0]}
        return {
            "prediction_logits": albert.mlm_logits(params, config, hidden, batch["mlm_positions"]),
            "sop_logits": albert.sop_logits(params, config, pooled)[:, 0],
        }

    return Program(head, Task.graph_inputs, outputs[head], call)


def _batch(inputs: Inputs) -> dict[str, jax.Array]:
    """Rows as our heads read them, made of the inputs of a program."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    positions = jax.lax.broadcasted_iota(jnp.int32, ids.shape, ids.ndim - 1)
    batch = {
        "input_ids": ids,
        "token_type_ids": inputs["token_type_ids"],
        "segment_ids": mask,
        "positions": positions,
        "mlm_positions": positions,
        "cls_positions": jnp.zeros((*ids.shape[:-1], 1), jnp.int32),
    }
    if ids.ndim == 3:
        batch["choice_mask"] = (mask[:, :, 0] > 0).astype(jnp.float32)
    if "p_mask" in inputs:
        batch["p_mask"] = inputs["p_mask"]
    return batch
