"""A fine-tuned model applied to examples of its task."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax

from albert_jax.config import Config
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.model import unroll
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support import prediction
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.prediction import Sampling
from albert_jax.tasks.task import AnyTask, Forward, Prediction

if TYPE_CHECKING:
    from albert_jax.inference.early_exit import EarlyExit

BATCH_SIZE = 32
"""Rows of a batch; fewer examples make one smaller batch."""


def task_of(model: Model) -> AnyTask:
    """The task of a fine-tuned model. Raises CheckpointError for other models."""
    config = model.run_config.task
    if config is None:
        raise CheckpointError(
            f"{model.source} was not fine-tuned: name the --out of albert-jax finetune"
        )
    return registry.create(config)


def with_denoising_steps(model: Model, steps: int) -> Model:
    """The model with another number of denoising steps.

    Raises ConfigError for a model that does not generate, or a number below 1.
    """
    task = task_of(model)
    if not task.generates:
        raise ConfigError(f"--denoising-steps is for generation, not for {task.name}: leave it out")
    config = task.with_config(denoising_steps=steps).config
    run_config = replace(model.run_config, task=config)
    run_config.validate()
    return replace(model, run_config=run_config)


def featurize(model: Model, examples: Sequence[Any]) -> list[Any]:
    """Features of examples, for `predict`. Raises DataError."""
    length = model.run_config.phases[-1].sequence_length
    return prediction.featurize(task_of(model), model.vocabulary, examples, length)


def truncated_examples(model: Model, features: Sequence[Any]) -> str:
    """A line on the examples (or windows) that lose tokens to a row's end; "" if none does."""
    task, length = task_of(model), model.run_config.phases[-1].sequence_length
    count = sum(map(task.is_truncated, features))
    if not count:
        return ""
    return f"examples that lose tokens, because a row holds {length}: {count}"


def predict(
    model: Model,
    examples: Sequence[Any],
    *,
    num_layers: int | None = None,
    early_exit: EarlyExit | None = None,
    features: Sequence[Any] | None = None,
    sampling: Sampling | None = None,
) -> list[Prediction]:
    """One prediction per example of a fine-tuned model's task, in float32 on the first device.

    With `early_exit` rows leave the network as soon as their prediction is confident, and
    `num_layers` is not used. `features` are those of `featurize`, if they have been made already.
    Raises CheckpointError for a model that was not fine-tuned, and DataError if none of the
    examples can be used.
    """
    task = task_of(model)
    return prediction.predict(
        task if early_exit is None else early_exit.task,
        model.vocabulary,
        examples,
        forward(model, num_layers) if early_exit is None else early_exit.outputs,
        length=model.run_config.phases[-1].sequence_length,
        batch_size=min(BATCH_SIZE, 1 << (len(examples) - 1).bit_length()),
        sampling=sampling,
        features=features,
    )


def forward(model: Model, num_layers: int | None = None) -> Forward:
    """The function from a batch to the task's outputs, on this process's first device."""
    program = _program(model.run_config, num_layers)
    return lambda batch: jax.device_get(program(model.params, batch))


@functools.lru_cache(maxsize=8)
def _program(run_config: Config, num_layers: int | None) -> Any:
    """The compiled (params, batch) -> outputs, one per structure, so that more examples of the
    same shapes compile nothing."""
    assert run_config.task is not None
    task = registry.create(run_config.task)
    encoder = Encoder(run_config.model, unroll.inference_compute(run_config.model, num_layers))
    return jax.jit(
        lambda params, batch: task.outputs(encoder.bind(params, None, num_layers), batch)
    )
