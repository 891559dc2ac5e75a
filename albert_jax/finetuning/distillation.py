"""Distillation: a classifier that learns from a teacher too (Hinton et al. 2015).

The hidden states of two networks are compared by how their tokens lie to one another, not one by
one (Tung and Mori 2019, "similarity-preserving"): so width and depth may differ, and nothing has
to be learned to compare them. The teacher's outputs come as columns of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.inference.predict import task_of
from albert_jax.model import attention
from albert_jax.model_io import model as models
from albert_jax.model_io import run_record
from albert_jax.objectives.loss_terms import LossTerm, LossTerms, cross_entropy
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Batch, Encoder, Params
from albert_jax.tasks.support.rows import INPUTS
from albert_jax.tasks.task import AnyTask

MAX_DEPTHS = 4
"""Most depths at which hidden states are compared."""


def with_teacher_labels(task: AnyTask) -> AnyTask:
    """The task with its teacher's labels, in their order.

    Raises CheckpointError for a teacher that is not a fine-tuned classifier, ConfigError where the
    task's config names other labels.
    """
    source, labels, teacher = task.config.teacher, task.config.labels, None
    if run_record.is_run(source):
        teacher = configfile.load(files.join(source, "config.toml")).task
    if teacher is None or not registry.get(teacher.name).classifies:
        raise CheckpointError(
            f"--teacher {source} is not a run that was fine-tuned to classification: name the "
            "--out of one"
        )
    teacher_config = registry.create(teacher).config
    teacher_labels = teacher_config.labels
    if labels and labels != teacher_labels:
        raise ConfigError(
            f"task.labels are {', '.join(labels)}, those of --teacher {source} "
            f"{', '.join(teacher_labels)}: leave them out"
        )
    names = task.config.label_names or teacher_config.label_names
    return task.with_config(labels=teacher_labels, label_names=names)


def teacher_columns(
    teacher: models.Model, config: Config, vocabulary: Vocabulary
) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function that adds the teacher's columns to a batch.

    They are teacher_logits [B, C] and, unless hidden_state_weight is 0, teacher_similarities
    [B, depths, S, S]. The teacher runs on this process's first device, before each step.

    Raises ConfigError for another vocabulary than the student's, or rows that are longer than the
    teacher reads.
    """
    student: Any = config.task
    run_config, task = teacher.run_config, task_of(teacher)
    if teacher.vocabulary.fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"--teacher {teacher.source} has another vocabulary than --init: start from a network "
            "with the teacher's, or leave --init out"
        )
    longest = max(phase.sequence_length for phase in config.phases)
    if longest > teacher.config.max_position_embeddings:
        raise ConfigError(
            f"--teacher {teacher.source} reads {teacher.config.max_position_embeddings} tokens, "
            f"the rows have {longest}: lower phases.0.sequence_length"
        )
    shallower = min(teacher.config.num_hidden_layers, config.model.num_hidden_layers)
    depths = min(MAX_DEPTHS, shallower) if student.hidden_state_weight else 0
    backend = attention.fastest(run_config, jax.local_devices()[0])
    encoder = Encoder(run_config.model, run_config.compute, backend)
    params = jax.device_put(teacher.params)

    @jax.jit
    def run(params: Params, batch: Batch) -> dict[str, jax.Array]:
        bound = encoder.bind(params)
        hidden, states = bound.all_states(batch)
        columns = {"teacher_logits": task.head_logits(bound, hidden, batch)}
        if depths:
            compared = _compared(bound, states, batch, depths)
            columns["teacher_similarities"] = jnp.moveaxis(compared, 0, 1)
        return columns

    def add(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = jax.device_get(run(params, {name: batch[name] for name in INPUTS}))
        return batch | {name: np.asarray(column, np.float32) for name, column in columns.items()}

    return add


def distillation_loss(task: AnyTask, encoder: Encoder, batch: Any) -> LossTerms:
    """Cross-entropies with the labels and with the teacher's, and differences of hidden states.

    Terms "class", "teacher" (distillation_weight of the two; at distillation_temperature, times
    its square as in the paper) and "states" (hidden_state_weight).
    """
    share, temperature = task.config.distillation_weight, task.config.distillation_temperature
    hidden, states = encoder.all_states(batch)
    logits = task.head_logits(encoder, hidden, batch)
    weights, labels = batch["example_weights"], batch["labels"]
    teacher = jax.nn.log_softmax(batch["teacher_logits"] / temperature)
    student = jax.nn.log_softmax(logits / temperature)
    divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), -1)
    totals = {
        "class": (1 - share) * jnp.sum(weights * cross_entropy(logits, labels)),
        "teacher": share * temperature**2 * jnp.sum(weights * divergence),
    }
    if "teacher_similarities" in batch:
        theirs = jnp.moveaxis(batch["teacher_similarities"], 1, 0)
        ours = _compared(encoder, states, batch, len(theirs))
        real = jnp.sum(batch["segment_ids"] > 0, -1)
        distance = jnp.sum(jnp.square(ours - theirs), (-2, -1)) / jnp.maximum(real, 1) ** 2
        total = jnp.sum(weights * jnp.mean(distance, 0))
        totals["states"] = task.config.hidden_state_weight * total
    correct = jnp.sum(weights * (jnp.argmax(logits, -1) == labels))
    return LossTerms(
        {name: LossTerm(total, "example_weights") for name, total in totals.items()},
        {"example_correct": correct},
    )


def compared_depths(num_layers: int, count: int) -> tuple[int, ...]:
    """The layers after which states are compared: equal parts of the depth, up to the last one."""
    return tuple(math.ceil(num_layers * k / count) for k in range(1, count + 1))


def token_similarities(states: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Cosines float32 [..., B, S, S] of each row's tokens [..., B, S, H] to one another.

    The mean of a row's tokens is subtracted first: all states of ALBERT point in one direction,
    and what they share says nothing. Where one of the two is padding the cosine is 0.
    """
    real = (segment_ids > 0).astype(jnp.float32)[..., None]
    states = states.astype(jnp.float32)
    count = jnp.maximum(jnp.sum(real, -2, keepdims=True), 1.0)
    centered = (states - jnp.sum(states * real, -2, keepdims=True) / count) * real
    # The square root has no gradient at 0, which padding has.
    norm = jnp.sqrt(jnp.sum(jnp.square(centered), -1, keepdims=True) + 1e-12)
    unit = centered / norm
    return jnp.einsum("...sh,...th->...st", unit, unit)


def _compared(encoder: Encoder, states: jax.Array, batch: Batch, count: int) -> jax.Array:
    """Similarities [count, B, S, S] of the states at the depths that are compared."""
    depths = compared_depths(encoder.num_layers or encoder.model.num_hidden_layers, count)
    last_blocks = jnp.asarray([encoder.model.inner_group_num * depth - 1 for depth in depths])
    return token_similarities(states[last_blocks], batch["segment_ids"])
