"""The teacher of a fine-tuning run: what it says of a batch, as further columns of that batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from albert_jax import configfile, files
from albert_jax.config import Config, TaskConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.finetune import distillation
from albert_jax.model_io import model as loading
from albert_jax.tasks.losses import INPUTS, Forward
from albert_jax.train.task import Batch

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary


def with_labels(task: TaskConfig) -> TaskConfig:
    """The task with its teacher's labels, in their order.

    Raises CheckpointError for a teacher that is no fine-tuned classifier, ConfigError where the
    config names other labels.
    """
    where = task.teacher
    found = None
    if loading.is_run(where):
        found = configfile.load(files.join(where, "config.toml")).task
    if found is None or found.name != "classification":
        raise CheckpointError(
            f"--teacher {where} is no run that was fine-tuned to classification: name the --out "
            "of one"
        )
    if task.labels and task.labels != found.labels:
        raise ConfigError(
            f"task.labels are {', '.join(task.labels)}, those of --teacher {where} "
            f"{', '.join(found.labels)}: leave them out"
        )
    return dataclasses.replace(task, labels=found.labels)


def columns(
    teacher: loading.Model, config: Config, vocabulary: Vocabulary
) -> Callable[[Batch], Batch]:
    """A function from rows to the rows with the teacher's columns (tasks/distillation.py).

    Its forward pass runs on this process' first device, before each step. Raises ConfigError for
    another vocabulary than the student's or rows longer than the teacher reads.
    """
    import jax

    from albert_jax.model import attention

    run_config, student = teacher.run_config, config.task
    assert student is not None and run_config.task is not None
    if teacher.vocabulary.fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"--teacher {teacher.source} has another vocabulary than --init: start from a network "
            "with the teacher's, or leave --init out"
        )
    longest = max(phase.sequence_length for phase in config.phases)
    if longest > teacher.config.max_position_embeddings:
        raise ConfigError(
            f"--teacher {teacher.source} reads {teacher.config.max_position_embeddings} pieces, "
            f"the rows have {longest}: lower phases.0.sequence_length"
        )
    shallower = min(teacher.config.num_hidden_layers, config.model.num_hidden_layers)
    points = min(distillation.POINTS, shallower) if student.teacher_states else 0
    backend = attention.fastest(run_config, jax.local_devices()[0])
    forward = Forward(run_config.model, run_config.compute, backend, run_config.task.pooling)
    params = jax.device_put(teacher.params)
    program = jax.jit(
        lambda params, rows: distillation.teacher_columns(forward, params, rows, points)
    )

    def taught(batch: Batch) -> Batch:
        found = jax.device_get(program(params, {name: batch[name] for name in INPUTS}))
        return batch | {name: np.asarray(column, np.float32) for name, column in found.items()}

    return taught
