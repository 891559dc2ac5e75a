"""The registry of tasks: each family joined with its head, its loss and its forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.errors import ConfigError
from albert_jax.finetune import distillation
from albert_jax.model import albert
from albert_jax.objectives.loss_terms import Loss
from albert_jax.tasks import losses
from albert_jax.tasks.families import FAMILIES, Family, Labels
from albert_jax.tasks.heads import HeadKind, head_shapes, init_head
from albert_jax.tasks.losses import Forward


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """Everything that a stage must know about a task family."""

    family: Family
    """Its side on the host: reading, features, batches, predictions, scores."""
    head: HeadKind
    """What stands on the encoder."""
    loss: Callable[[Forward, TaskConfig], Loss]
    """The loss of its batches."""
    outputs: Callable[
        [Forward, Mapping[str, Any], Mapping[str, jax.Array], TaskConfig, int | None], Any
    ]
    """(forward, parameters, batch, config, passes) to the arrays that ``family.predict`` reads."""
    metrics: tuple[str, ...]
    """Usual numbers; larger is better, and the first one marks the best checkpoint."""
    keeps_mlm_head: bool = False
    """Whether it is trained through the pretrained MLM head instead of a new one."""

    def head_outputs(self, labels: Labels) -> int:
        """Classes or tags of the head (1 where there are none)."""
        return max(1, len(labels))

    def units(self, config: TaskConfig) -> tuple[str, ...]:
        """What it keeps of the pretrained network beside embeddings and encoder."""
        if self.keeps_mlm_head:
            return ("mlm_head",)
        pooled = self.head in ("classifier", "choice") and config.pooling == "cls"
        return ("pooler",) if pooled else ()

    def abstract_params(self, model: ModelConfig, config: TaskConfig) -> dict[str, Any]:
        """Shapes of all parameters that are trained; the new head's stand under "head"."""
        whole = albert.abstract_params(model)
        shapes = head_shapes(self.head, model.hidden_size, self.head_outputs(config.labels))
        head = jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
            shapes,
            is_leaf=lambda node: isinstance(node, tuple),
        )
        kept = {name: whole[name] for name in ("embeddings", "encoder", *self.units(config))}
        return kept | ({"head": head} if head else {})

    def new_head(
        self, hidden_size: int, labels: Labels, seed: int, deviation: float = 0.02
    ) -> dict[str, Any]:
        """New head parameters for the "head" entry of the parameters."""
        return init_head(self.head, hidden_size, self.head_outputs(labels), seed, deviation)


TASKS: dict[str, TaskKind] = {
    "classification": TaskKind(
        family=FAMILIES["classification"],
        head="classifier",
        loss=lambda forward, c: (
            distillation.distilled_loss(forward, c)
            if c.teacher
            else losses.classification_loss(forward, c.head_dropout)
        ),
        outputs=lambda f, p, b, c, num_layers: losses.classification_outputs(f, p, b, num_layers),
        metrics=("accuracy", "f1", "matthews"),
    ),
    "regression": TaskKind(
        family=FAMILIES["regression"],
        head="classifier",
        loss=lambda forward, c: losses.regression_loss(forward, c.head_dropout),
        outputs=lambda f, p, b, c, num_layers: losses.classification_outputs(f, p, b, num_layers),
        metrics=("pearson", "spearman"),
    ),
    "choice": TaskKind(
        family=FAMILIES["choice"],
        head="choice",
        loss=lambda forward, c: losses.choice_loss(forward, c.head_dropout),
        outputs=lambda f, p, b, c, num_layers: losses.choice_outputs(f, p, b, num_layers),
        metrics=("accuracy",),
    ),
    "squad-v1": TaskKind(
        family=FAMILIES["squad-v1"],
        head="span",
        loss=lambda forward, c: losses.span_loss(forward),
        outputs=lambda f, p, b, c, num_layers: losses.span_outputs(f, p, b, num_layers),
        metrics=("f1", "exact_match"),
    ),
    "squad-v2": TaskKind(
        family=FAMILIES["squad-v2"],
        head="conditioned_span",
        loss=lambda forward, c: losses.conditioned_span_loss(forward, c.head_dropout),
        outputs=lambda f, p, b, c, num_layers: losses.conditioned_span_outputs(
            f, p, b, num_layers, *c.beam
        ),
        metrics=("f1", "exact"),
    ),
    "tagging": TaskKind(
        family=FAMILIES["tagging"],
        head="tagger",
        loss=lambda forward, c: losses.tag_loss(forward, c.head_dropout),
        outputs=lambda f, p, b, c, num_layers: losses.tag_outputs(f, p, b, num_layers),
        metrics=("f1", "accuracy"),
    ),
    "embedding": TaskKind(
        family=FAMILIES["embedding"],
        head="none",
        loss=lambda forward, c: losses.contrastive_loss(forward, c.temperature),
        outputs=lambda f, p, b, c, num_layers: losses.embedding_outputs(f, p, b, num_layers),
        metrics=("spearman", "retrieval"),
    ),
    "generation": TaskKind(
        family=FAMILIES["generation"],
        head="none",
        loss=lambda forward, c: losses.canvas_loss(forward),
        outputs=lambda f, p, b, c, num_layers: losses.canvas_outputs(f, p, b, num_layers),
        metrics=("bleu", "chrf", "exact"),
        keeps_mlm_head=True,
    ),
}


def task(name: str) -> TaskKind:
    """The task of a name; ConfigError lists the names for an unknown one."""
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}: give one of {', '.join(TASKS)}")
    return TASKS[name]
