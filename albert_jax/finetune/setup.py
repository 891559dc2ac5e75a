"""What a fine-tuning config leaves open, settled before anything starts: labels, network, steps."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig, TaskConfig
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.tasks import batching, metrics
from albert_jax.tasks import tables as formats
from albert_jax.tasks.old_registry import TaskKind

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

SCRATCH = "finetune/scratch"
"""The preset whose network is trained where no weights are given."""

OWN = ("hidden_dropout_prob", "attention_probs_dropout_prob")
"""Fields of the model that fine-tuning may choose; the others come with the weights."""


def given_task(config: Config, max_steps: int | None) -> TaskConfig:
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


def task(given: TaskConfig, kind: TaskKind, train: Sequence[Any], dev: Sequence[Any]) -> TaskConfig:
    """The task with labels and metrics filled in; raises ConfigError for unknown metrics."""
    usual = kind.metrics
    if given.name == "embedding":
        known = all(example.label is not None for example in dev)
        usual = ("spearman", "pearson") if known else ("retrieval",)
        for example in dev if known else ():
            formats.score(example.where, example.label)
    labels = kind.family.labels(train, given)
    if given.name == "tagging" and not metrics.names_spans(labels):
        usual = ("accuracy",)
    for name in given.metrics:
        if name not in usual:
            raise ConfigError(
                f"task.metrics: {name!r} is no number of this task and its dev examples: "
                f"give {', '.join(usual)}"
            )
    return dataclasses.replace(given, labels=labels, metrics=given.metrics or usual)


def network_of(source: str, asked: ModelConfig, *, given: bool) -> tuple[ModelConfig, Vocabulary]:
    """Structure and vocabulary of a run or directory, with the dropout that is `asked`.

    Raises CheckpointError where it cannot be read, its vocabulary has another size than its
    embeddings, or (if `given`) a field that the config sets says otherwise.
    """
    from albert_jax.data.vocabularies import vocabulary as vocabularies
    from albert_jax.model_io import model as loading
    from albert_jax.model_io.huggingface import check_vocabulary

    if loading.is_run(source):
        model = configfile.load(files.join(source, "config.toml")).model
        vocabulary = vocabularies.load(files.join(source, "vocabulary"))
        check_vocabulary(vocabulary, model)
    else:
        found = loading.load(source)
        model, vocabulary = found.config, found.vocabulary
    for name in _changed(asked) if given else ():
        if getattr(asked, name) != getattr(model, name):
            raise CheckpointError(
                f"{source} has {name} {getattr(model, name)}, the config {getattr(asked, name)}: "
                f"the network comes with its weights; leave model.{name} out"
            )
    return dataclasses.replace(model, **{name: getattr(asked, name) for name in OWN}), vocabulary


def new_network(
    asked: ModelConfig, texts: Sequence[str], known: Vocabulary | None = None
) -> tuple[ModelConfig, Vocabulary]:
    """A small network to start without weights, and a vocabulary of the texts; says so in a line.

    Fields that differ from their defaults in `asked` are kept; the others are those of the preset
    SCRATCH. With `known` that is the vocabulary (a teacher's). Raises DataError where the texts do
    not make one.
    """
    from albert_jax.data.vocabularies import training as tokenizer_training

    small = configfile.load(SCRATCH).model
    model = dataclasses.replace(
        small, **{name: getattr(asked, name) for name in (*OWN, *_changed(asked))}
    )
    vocabulary = known or tokenizer_training.from_texts(texts, model.vocab_size)
    origin = "trained on the training texts" if known is None else "that is its teacher's"
    print(
        f"no --init: a random network of {model.num_hidden_layers} passes of width "
        f"{model.hidden_size}, and a vocabulary of {vocabulary.size} pieces {origin}",
        file=sys.stderr,
    )
    return dataclasses.replace(model, vocab_size=vocabulary.size), vocabulary


def with_steps(config: Config, features: int, per_batch: int, max_steps: int | None) -> Config:
    """The config with its epochs as steps and at most `max_steps`; warm-up keeps its share.

    Raises ConfigError for epochs with several phases.
    """
    phases, task = config.phases, config.task
    assert task is not None
    if task.epochs:
        if len(phases) > 1:
            raise ConfigError(
                f"task.epochs is {task.epochs:g}, but there are {len(phases)} phases: set it to 0 "
                "and give each phase its steps"
            )
        steps = batching.steps_of(task.epochs, features, per_batch)
        phases = (dataclasses.replace(phases[0], steps=steps),)  # pyright: ignore[reportGeneralTypeIssues]
    if max_steps is not None and sum(phase.steps for phase in phases) > max_steps:
        left, kept = max_steps, []
        for phase in phases:
            if left:
                kept.append(dataclasses.replace(phase, steps=min(left, phase.steps)))
                left -= kept[-1].steps
        # The steps are said now: another start from this config must not count epochs again.
        phases, task = tuple(kept), dataclasses.replace(task, epochs=0.0)
    steps = sum(phase.steps for phase in phases)
    warmup = round(config.optimizer.warmup_steps * steps / config.steps)
    optimizer = dataclasses.replace(config.optimizer, warmup_steps=warmup)
    return dataclasses.replace(config, phases=phases, optimizer=optimizer, task=task)


def _changed(model: ModelConfig) -> list[str]:
    """Fields of the structure that are not what they are by default."""
    default = ModelConfig()
    names = (field.name for field in dataclasses.fields(ModelConfig) if field.name not in OWN)
    return [name for name in names if getattr(model, name) != getattr(default, name)]
