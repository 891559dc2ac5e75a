"""The network of a fine-tuning run: its structure, vocabulary and first parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import CheckpointError
from albert_jax.tasks.task import AnyTask

SCRATCH = "finetune/scratch"
"""The preset whose network is trained where no weights are given."""
DROPOUT_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
"""Fields of the model that fine-tuning chooses; the others come with the weights."""


def pretrained_network(
    source: str, config: ModelConfig, given: Collection[str] | None
) -> tuple[ModelConfig, Vocabulary]:
    """Structure and vocabulary of a run or directory, with the dropout of `config`.

    Raises CheckpointError where it cannot be read, its vocabulary has no [CLS] or another size than
    its embeddings, or a field of the config differs that is not the default or among the paths
    `given` (None: the fields are not compared).
    """
    from albert_jax.model_io import model as models
    from albert_jax.model_io import run_record
    from albert_jax.model_io.weights import check_vocabulary

    if run_record.is_run(source):
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
    compared = {} if given is None else _set_fields(config, given)
    for name, value in compared.items():
        if value != getattr(model, name):
            raise CheckpointError(
                f"{source} has {name} {getattr(model, name)}, the config {value}: "
                f"the network comes with its weights; leave model.{name} out"
            )
    return dataclasses.replace(model, **_dropout(config)), vocabulary


def new_network(
    config: ModelConfig,
    texts: Sequence[str],
    known: Vocabulary | None = None,
    given: Collection[str] = (),
) -> tuple[ModelConfig, Vocabulary, str]:
    """(a small network to train without weights, a vocabulary of the texts, a line on both).

    Fields of `config` that differ from the defaults, and the paths `given`, are kept; the others
    are those of the preset SCRATCH. `known` is used as the vocabulary if it is given (a teacher's).
    Raises DataError where the texts do not make one.
    """
    from albert_jax.data.vocabularies import training

    preset = configfile.load(SCRATCH).model
    model = dataclasses.replace(preset, **_dropout(config), **_set_fields(config, given))
    vocabulary = known or training.from_texts(texts, model.vocab_size)
    origin = "trained on the training texts" if known is None else "of its teacher"
    line = (
        f"no --init: a random network of {model.num_hidden_layers} layers of width "
        f"{model.hidden_size}, and a vocabulary of {vocabulary.size} tokens {origin}"
    )
    return dataclasses.replace(model, vocab_size=vocabulary.size), vocabulary, line


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


def _dropout(model: ModelConfig) -> dict[str, Any]:
    return {name: getattr(model, name) for name in DROPOUT_FIELDS}


def _set_fields(model: ModelConfig, given: Collection[str]) -> dict[str, Any]:
    """Fields of the structure that are `given` or do not have their default, with their values."""
    default = vars(ModelConfig())
    return {
        name: value
        for name, value in vars(model).items()
        if name not in DROPOUT_FIELDS and (value != default[name] or f"model.{name}" in given)
    }
