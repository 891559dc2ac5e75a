"""The config of a fine-tuning run: its defaults, and what the weights and examples decide."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from albert_jax import config_builder, configfile
from albert_jax.config import Config, ModelConfig, PhaseConfig, TaskConfig
from albert_jax.config_fields import leaves
from albert_jax.errors import ConfigError
from albert_jax.tasks import registry

if TYPE_CHECKING:
    from albert_jax.finetuning.batches import TrainingFeatures

PRESET_WIDTH = 768
"""Hidden size of the models that the learning rates of the presets are for (base)."""
NARROWEST = 384
"""Narrower models take no larger learning rate than those of this width: 8e-4 instead of 5e-5 was
best on dev sets at widths of 384, 256 and 128."""

FEWEST_STEPS, MOST_EPOCHS = 200, 10
"""A preset's epochs grow until they make so many steps, or are so many: a few hundred texts have
taught little after three epochs (Zhang et al. 2021, arXiv 2006.05987)."""


def defaults(name: str | None, init: str | None, task: str | None) -> tuple[Config, set[str]]:
    """The config of a name under a task, and the paths of the fields that a file sets by itself.

    Without a name it is a preset: finetune/default, or finetune/scratch without weights in `init`.
    What a preset says of the length of rows is adapted to the weights, but not what stands in a
    file of the user's own.
    """
    name = name or ("finetune/default" if init else "finetune/scratch")
    config = config_builder.with_task(configfile.load(name), task)
    base = config_builder.with_task(configfile.base_of(name)[1], task)
    return config, {path for path, _ in set(leaves(config)) - set(leaves(base))}


def with_files(
    config: Config,
    *,
    train: str | None,
    dev: str | None,
    teacher: str | None,
    columns: Sequence[str] | None,
) -> Config:
    """The config with those settings of its task that are given (not None).

    Raises ConfigError for one that the task does not have.
    """
    task = config.task
    assert task is not None
    changes: dict[str, Any] = {"train": train, "dev": dev, "teacher": teacher}
    changes["columns"] = None if columns is None else tuple(columns)
    changes = {name: value for name, value in changes.items() if value is not None}
    for name in changes:
        if not hasattr(task, name):
            raise ConfigError(f"--{name}: {task.name} has no such setting; leave it out")
    return dataclasses.replace(config, task=dataclasses.replace(task, **changes))


def check_task(config: Config, max_steps: int | None) -> TaskConfig:
    """The config's task; raises ConfigError if there is none, or no examples."""
    task = config.task
    if task is None:
        raise ConfigError("the config has no task: give --task NAME, or a config with one")
    for name in ("train", "dev"):
        if not getattr(task, name):
            raise ConfigError(f"task.{name} is empty: give --{name} FILE")
    if max_steps is not None and max_steps < 1:
        raise ConfigError(f"--max-steps {max_steps}: give at least 1")
    usual = PhaseConfig()
    for number, phase in enumerate(config.phases):
        for name in ("objective", "packing", "mixture", "short_seq_prob"):
            if getattr(phase, name) != getattr(usual, name):
                raise ConfigError(f"phases.{number}.{name} is for pretraining: leave it out")
    return task


def at_depth(model: ModelConfig, num_layers: int | None) -> ModelConfig:
    """The structure with another depth, if one is given. Raises ConfigError."""
    from albert_jax.model.sharing import check_depth

    if num_layers is None:
        return model
    check_depth(model, num_layers)
    return dataclasses.replace(model, num_hidden_layers=num_layers)


def fit_to_weights(
    config: Config, given: Collection[str], source: str, teacher: Any = None
) -> tuple[Config, str]:
    """(the config with rows no longer than the positions of its model, settings that fit them and
    a learning rate for its width, what was changed or "").

    The paths `given` were chosen by hand and stay as they are. Raises ConfigError for a given
    length above the positions of the weights in `source`.
    """
    positions, task = config.model.max_position_embeddings, config.task
    if teacher is not None and teacher.config.max_position_embeddings < positions:
        positions, source = teacher.config.max_position_embeddings, teacher.source
    assert task is not None
    phases, lines = [], []
    for number, phase in enumerate(config.phases):
        path, length = f"phases.{number}.sequence_length", phase.sequence_length
        if length > positions and path in given:
            raise ConfigError(
                f"{path} is {length}, but the weights of {source} have {positions} positions: "
                f"give at most {positions}, or leave it out"
            )
        phases.append(dataclasses.replace(phase, sequence_length=min(length, positions)))
        if length > positions:
            lines.append(f"rows of {positions} tokens (not {length}), the positions of the weights")
    shortest = min(phase.sequence_length for phase in phases)
    lowered = {
        name: most
        for name, most in registry.create(task).fitting_settings(shortest).items()
        if f"task.{name}" not in given and getattr(task, name) > most
    }
    lines += [f"task.{name} {value} (not {getattr(task, name)})" for name, value in lowered.items()]
    task = dataclasses.replace(task, **lowered)
    optimizer, width = config.optimizer, config.model.hidden_size
    rate = optimizer.learning_rate
    if width < PRESET_WIDTH and "optimizer.learning_rate" not in given:
        fitted = float(f"{rate * (PRESET_WIDTH / max(width, NARROWEST)) ** 4:.1e}")
        optimizer = dataclasses.replace(optimizer, learning_rate=fitted)
        lines.append(f"learning rate {fitted:g} (not {rate:g}), for weights of width {width}")
    config = dataclasses.replace(config, phases=tuple(phases), task=task, optimizer=optimizer)
    return config, "; ".join(dict.fromkeys(lines))


def complete(
    config: Config, given: Collection[str], features: TrainingFeatures, max_steps: int | None
) -> tuple[Config, str]:
    """(the config with its steps, what was changed of its epochs or ""). Raises ConfigError."""
    config, line = with_more_epochs(config, given, features)
    return with_steps(config, given, features, max_steps), line


def with_more_epochs(
    config: Config, given: Collection[str], features: TrainingFeatures
) -> tuple[Config, str]:
    """(the config with more epochs where a preset's make few steps, what was changed or "").

    Steps that were chosen by hand stand in place of the preset's epochs.
    """
    task, per_epoch = config.task, features.steps_per_epoch()
    assert task is not None
    if _gives_steps(given) and "task.num_train_epochs" not in given:
        task = dataclasses.replace(task, num_train_epochs=0.0)
        return dataclasses.replace(config, task=task), ""
    epochs = float(min(MOST_EPOCHS, math.ceil(FEWEST_STEPS / per_epoch)))
    if not 0 < task.num_train_epochs < epochs or "task.num_train_epochs" in given:
        return config, ""
    line = f"{epochs:g} epochs (not {task.num_train_epochs:g}) of {per_epoch} steps"
    task = dataclasses.replace(task, num_train_epochs=epochs)
    return dataclasses.replace(config, task=task), line


def with_steps(
    config: Config, given: Collection[str], features: TrainingFeatures, max_steps: int | None
) -> Config:
    """The config with its epochs as steps, at most `max_steps`; warm-up keeps its share.

    Short runs are logged more often. The paths `given` were chosen by hand and stay as they are.
    Raises ConfigError for epochs with several phases.
    """
    phases, task = config.phases, config.task
    assert task is not None
    if task.num_train_epochs:
        phase, *others = phases
        if others:
            raise ConfigError(
                f"task.num_train_epochs is {task.num_train_epochs:g}, but there are "
                f"{len(phases)} phases: set it to 0 and give each phase its steps"
            )
        steps = max(1, round(task.num_train_epochs * features.steps_per_epoch()))
        phases = (dataclasses.replace(phase, steps=steps),)
    if max_steps is not None and sum(phase.steps for phase in phases) > max_steps:
        begins = itertools.accumulate((phase.steps for phase in phases), initial=0)
        phases = tuple(
            dataclasses.replace(phase, steps=min(phase.steps, max_steps - begin))
            for phase, begin in zip(phases, begins, strict=False)
            if begin < max_steps
        )
    # The steps are final: continuing from this config must not count epochs again.
    task = dataclasses.replace(task, num_train_epochs=0.0)
    steps = sum(phase.steps for phase in phases)
    optimizer, run = config.optimizer, config.run
    if "optimizer.warmup_steps" not in given:
        warmup = round(optimizer.warmup_steps * steps / config.steps)
        if _gives_steps(given):  # Of which the warm-up of the preset knew nothing.
            warmup = min(warmup, steps // 10)
        optimizer = dataclasses.replace(optimizer, warmup_steps=warmup)
    if "run.logging_steps" not in given:  # A curve of a short run needs points, too.
        run = dataclasses.replace(run, logging_steps=min(run.logging_steps, max(1, steps // 20)))
    return dataclasses.replace(config, phases=phases, optimizer=optimizer, task=task, run=run)


def _gives_steps(given: Collection[str]) -> bool:
    """True if the steps of a phase were chosen by hand."""
    return any(path.startswith("phases.") and path.endswith(".steps") for path in given)
