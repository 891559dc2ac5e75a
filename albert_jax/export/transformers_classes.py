"""The class of Transformers that a model becomes."""

from __future__ import annotations

from typing import Literal

from albert_jax.config import TaskConfig
from albert_jax.tasks import registry
from albert_jax.tasks.task import TransformersClass

Head = Literal["pretraining", "mlm", "base"]
"""Outputs of a pretrained model: both heads, the MLM head, or the hidden states."""

HEADS: dict[Head, TransformersClass] = {
    "pretraining": TransformersClass(
        name="AlbertForPreTraining",
        auto="AutoModelForPreTraining",
        modules=("pooler", "mlm_head", "sop_head"),
        pipeline="fill-mask",
    ),
    "mlm": TransformersClass(
        name="AlbertForMaskedLM",
        auto="AutoModelForMaskedLM",
        modules=("mlm_head",),
        pipeline="fill-mask",
    ),
    "base": TransformersClass(name="AlbertModel", auto="AutoModel", modules=("pooler",)),
}


def choose(head: Head | None, task: TaskConfig | None) -> TransformersClass:
    """The class of the named head, or else of the task, or else of pretraining.

    Raises ConfigError for a task whose head no class of Transformers has.
    """
    if head is None and task is not None:
        return registry.create(task).transformers_class()
    return HEADS[head or "pretraining"]
