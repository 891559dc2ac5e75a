"""Fills in a fine-tuning config: the network, its vocabulary, its weights, the steps."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Collection, Sequence
from typing import Any

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig, TaskConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.finetuning.batches import TrainingBatches
from albert_jax.tasks import registry
from albert_jax.tasks.task import AnyTask

SCRATCH = "finetune/scratch"
"""The preset whose network is trained where no weights are given."""
PRESET_WIDTH = 768
"""Hidden size of the models that the learning rates of the presets are for (base)."""
NARROWEST = 96
"""Narrower models take no larger learning rate than those of this width."""
DROPOUT_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
"""Fields of the model that fine-tuning chooses; the others come with the weights."""


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
    return task


def pretrained_network(
    source: str, config: ModelConfig, *, check: bool
) -> tuple[ModelConfig, Vocabulary]:
    """Structure and vocabulary of a run or directory, with the dropout of `config`.

    Raises CheckpointError where it cannot be read, its vocabulary has no [CLS] or another size than
    its embeddings, or (with `check`) a field that the config sets differs.
    """
    from albert_jax.model_io import model as models
    from albert_jax.model_io import run_record
    from albert_jax.model_io.weights import check_vocabulary

    if models.is_run(source):
        model = configfile.load(files.join(source, "config.toml")).model
        vocabulary = run_record.load_vocabulary(source)
        check_vocabulary(vocabulary, model)
    else:
        loaded = models.load(source)
        model, vocabulary = loaded.config, loaded.vocabulary
    if vocabulary.cls_id < 0:
        raise CheckpointError(
            f"{source} has a vocabulary without [CLS], which all tasks read: speech programs "
            "fine-tune what export --to plbert writes"
        )
    for name, value in _changed_fields(config).items() if check else ():
        if value != getattr(model, name):
            raise CheckpointError(
                f"{source} has {name} {getattr(model, name)}, the config {value}: "
                f"the network comes with its weights; leave model.{name} out"
            )
    return dataclasses.replace(model, **_dropout(config)), vocabulary


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
        fitted = float(f"{rate * (PRESET_WIDTH / max(width, NARROWEST)) ** 1.5:.1e}")
        optimizer = dataclasses.replace(optimizer, learning_rate=fitted)
        lines.append(f"learning rate {fitted:g} (not {rate:g}), for weights of width {width}")
    config = dataclasses.replace(config, phases=tuple(phases), task=task, optimizer=optimizer)
    return config, "; ".join(dict.fromkeys(lines))


def new_network(
    config: ModelConfig, texts: Sequence[str], known: Vocabulary | None = None
) -> tuple[ModelConfig, Vocabulary]:
    """A small network to train without weights, and a vocabulary of the texts; says so in a line.

    Fields of `config` that differ from the defaults are kept, the others are those of the preset
    SCRATCH. `known` is used as the vocabulary if it is given (a teacher's). Raises DataError where
    the texts do not make one.
    """
    from albert_jax.data.vocabularies import training

    preset = configfile.load(SCRATCH).model
    model = dataclasses.replace(preset, **_dropout(config), **_changed_fields(config))
    vocabulary = known or training.from_texts(texts, model.vocab_size)
    origin = "trained on the training texts" if known is None else "of its teacher"
    print(
        f"no --init: a random network of {model.num_hidden_layers} layers of width "
        f"{model.hidden_size}, and a vocabulary of {vocabulary.size} tokens {origin}",
        file=sys.stderr,
    )
    return dataclasses.replace(model, vocab_size=vocabulary.size), vocabulary


def initial_params(config: Config, task: AnyTask, vocabulary: Vocabulary, init: str | None) -> Any:
    """The weights of `init` (random ones if None) with a new head; raises CheckpointError."""
    from albert_jax.model.init import init_params
    from albert_jax.model_io.warm_start import initial_params_from
    from albert_jax.tasks.support.encoder import init_head, task_params

    model = config.model
    if init is None:
        pretrained = init_params(model, config.seed)
    else:
        pretrained = initial_params_from(init, model, vocabulary, seed=config.seed)
    head = init_head(task.head_shapes(model.hidden_size), config.seed, model.initializer_range)
    return task_params(task, pretrained, head)


def with_steps(config: Config, batches: TrainingBatches, max_steps: int | None) -> Config:
    """The config with its epochs as steps, at most `max_steps`; warm-up keeps its share.

    Short runs are logged more often. Raises ConfigError for epochs with several phases.
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
        steps = max(1, round(task.num_train_epochs * batches.steps_per_epoch()))
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
    warmup = round(config.optimizer.warmup_steps * steps / config.steps)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=warmup)
    # A curve of a short run needs points, too.
    logging_steps = min(config.run.logging_steps, max(1, steps // 20))
    run = dataclasses.replace(config.run, logging_steps=logging_steps)
    return dataclasses.replace(config, phases=phases, optimizer=optimizer, task=task, run=run)


def _dropout(model: ModelConfig) -> dict[str, Any]:
    return {name: getattr(model, name) for name in DROPOUT_FIELDS}


def _changed_fields(model: ModelConfig) -> dict[str, Any]:
    """Fields of the structure that do not have their default, with their values."""
    default = vars(ModelConfig())
    return {
        name: value
        for name, value in vars(model).items()
        if name not in DROPOUT_FIELDS and value != default[name]
    }
