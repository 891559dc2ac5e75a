"""The class of Transformers that a model becomes: of the named head, its task or pretraining."""

from __future__ import annotations

from typing import Literal

from albert_jax.config import Config, TaskConfig
from albert_jax.errors import ConfigError
from albert_jax.tasks import registry
from albert_jax.tasks.task import TransformersClass

Head = Literal["pretraining", "mlm", "base"]

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
"""By --head."""


def choose(head: Head | None, task: TaskConfig | None) -> TransformersClass:
    """The class to write: the named head's, else the task's, else pretraining's.

    Raises ConfigError for a task whose head no class of Transformers has.
    """
    if head is not None:
        return HEADS[head]
    if task is None:
        return HEADS["pretraining"]
    return registry.get(task.name).transformers_class(task)


def own_task(cls: TransformersClass, run: Config | None) -> TaskConfig | None:
    """The task of a fine-tuned run that is exported with its own head, else None."""
    if run is None or run.task is None:
        return None
    try:
        own = registry.get(run.task.name).transformers_class(run.task)
    except ConfigError:
        return None
    return run.task if own == cls else None
