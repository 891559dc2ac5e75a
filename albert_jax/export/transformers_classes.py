"""The class of Transformers that a model becomes."""

from __future__ import annotations

from typing import Literal

from albert_jax.config import Config
from albert_jax.tasks import registry
from albert_jax.tasks.task import AnyTask, TransformersClass

Head = Literal["pretraining", "mlm", "base"]
"""Outputs of a pretrained model: both heads, the MLM head, or the hidden states."""

HEADS: dict[Head, TransformersClass] = {
    "pretraining": TransformersClass(
        name="AlbertForPreTraining",
        modules=("pooler", "mlm_head", "sop_head"),
        pipeline="fill-mask",
    ),
    "mlm": TransformersClass(
        name="AlbertForMaskedLM",
        modules=("mlm_head",),
        pipeline="fill-mask",
    ),
    "base": TransformersClass(name="AlbertModel", modules=("pooler",)),
}


def exported_task(run_config: Config, head: Head | None) -> AnyTask | None:
    """The task of a fine-tuned model, unless a head of pretraining is named."""
    if head is not None or run_config.task is None:
        return None
    return registry.create(run_config.task)


def choose(head: Head | None, task: AnyTask | None) -> TransformersClass:
    """The class of the named head, or else of the task, or else of pretraining.

    Raises ConfigError for a task whose head no class of Transformers has.
    """
    return HEADS[head or "pretraining"] if task is None else task.transformers_class()
