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
from albert_jax.tasks import old_registry as registry
from albert_jax.tasks.losses import Forward

EXACT = ComputeConfig(dtype="float32", attention="xla")
"""Graphs compute in float32 with plain matrix products."""

Axes = tuple[str | int, ...]


@dataclass(frozen=True)
class Program:
    """One function of (parameters, inputs), and the axes of what goes in and comes out."""

    kind: str
    """Name of a head (pretraining, mlm, base) or of a task."""
    inputs: dict[str, Axes]
    """All int32 (ONNX: int64), but for p_mask, which is float32."""
    outputs: dict[str, Axes]
    """All float32, but for names that end in _places, which are int32 (ONNX: int64)."""
    call: Callable[[Mapping[str, Any], Mapping[str, jax.Array]], dict[str, jax.Array]]
    shortest: int = 1
    """Least length of a row: the search of SQuAD 2.0 takes the best of that many places."""


def program(run_config: Config, params: Mapping[str, Any], head: Head | None) -> Program:
    """The program of a model: with the named head, else its task's, else pretraining's.

    Raises CheckpointError where the parameters lack a part that the head needs.
    """
    task = run_config.task if head is None else None
    kind = head or ("pretraining" if task is None else task.name)
    units = HEADS[kind].units if task is None else registry.task(task.name).units(task)  # type: ignore[index]
    missing = [unit for unit in units if unit not in params]
    if missing:
        raise CheckpointError(
            f"the weights have no {' and no '.join(missing)}, which {kind} needs: "
            "export another head"
        )
    rows: Axes = ("batch", "choices", "length") if kind == "choice" else ("batch", "length")
    inputs: dict[str, Axes] = {
        "input_ids": rows,
        "token_type_ids": rows,
        "attention_mask": rows,
    }
    if kind == "squad-v2":
        inputs["p_mask"] = rows
    hidden, vocab = run_config.model.hidden_size, run_config.model.vocab_size
    places: Axes = ("batch", "length")
    match kind:
        case "pretraining":
            outputs: dict[str, Axes] = {
                "prediction_logits": (*places, vocab),
                "sop_logits": ("batch", 2),
            }
        case "mlm" | "generation":
            outputs = {"logits": (*places, vocab)}
        case "base":
            outputs = {"last_hidden_state": (*places, hidden), "pooler_output": ("batch", hidden)}
        case "classification" | "regression":
            assert task is not None
            outputs = {"logits": ("batch", max(1, len(task.labels)))}
        case "choice":
            outputs = {"logits": ("batch", "choices")}
        case "tagging":
            assert task is not None
            outputs = {"logits": (*places, max(1, len(task.labels)))}
        case "embedding":
            outputs = {"sentence_embedding": ("batch", hidden)}
        case "squad-v1":
            outputs = {"start_logits": places, "end_logits": places}
        case _:
            assert task is not None
            starts, ends = task.beam
            outputs = {
                "start_log_probs": ("batch", starts),
                "start_places": ("batch", starts),
                "end_log_probs": ("batch", starts, ends),
                "end_places": ("batch", starts, ends),
                "unanswerable": ("batch",),
            }
    names = tuple(outputs)

    def call(params: Mapping[str, Any], inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        found = _apply(run_config, kind, params, _batch(inputs))
        return dict(zip(names, found, strict=True))

    shortest = max(task.beam) if task is not None and kind == "squad-v2" else 1
    return Program(kind, inputs, outputs, call, shortest)


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


def _apply(
    run_config: Config, kind: str, params: Mapping[str, Any], batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, ...]:
    model = run_config.model
    if kind in ("pretraining", "mlm", "base"):
        hidden = albert.encode(params, model, batch, compute=EXACT)
        if kind == "mlm":
            return (albert.mlm_logits(params, model, hidden, batch["mlm_positions"]),)
        pooled = albert.pooled(params, model, hidden, batch["cls_positions"])
        if kind == "base":
            return hidden, pooled[:, 0]
        return (
            albert.mlm_logits(params, model, hidden, batch["mlm_positions"]),
            albert.sop_logits(params, model, pooled)[:, 0],
        )
    assert run_config.task is not None
    forward = Forward(model, EXACT, pooling=run_config.task.pooling)
    found = registry.task(kind).outputs(forward, params, batch, run_config.task, None)
    return tuple(found) if isinstance(found, tuple) else (found,)
