"""A model, loaded from a run or from any directory with weights."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig
from albert_jax.errors import CheckpointError
from albert_jax.model_io import run_record

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

BEFORE_CONFIG = frozenset({"lock", "rows", "vocabulary", "record.json"})
"""Names that an interrupted start of a run leaves behind before config.toml, its last file."""
ParamsKind = Literal["trained", "averaged"]
"""The parameters of a checkpoint, or their running average."""


@dataclass(frozen=True, repr=False)
class Model:
    """A network that can be applied: its structure, its parameters, its vocabulary.

    >>> load(directory)
    Model(2 layers, hidden size 16, 64 tokens, from '...')
    """

    run_config: Config
    """The config of the training, if `has_run_config`; else the model's config with defaults."""
    params: dict[str, Any]
    """Nested dict of float32 arrays."""
    vocabulary: Vocabulary
    source: str
    """The path that the model was loaded from."""
    step: int | None = None
    """Number of training steps, if the model comes from a run."""
    has_run_config: bool = True
    """True if `run_config` is that of a training; weights of other programs come without one."""
    weights: ParamsKind = "trained"
    """Kind of the parameters: the trained ones, or their average."""

    @property
    def config(self) -> ModelConfig:
        """The structure of the network."""
        return self.run_config.model

    def at_depth(self, num_layers: int) -> Model:
        """The model of `num_layers` layers, as `encode` applies them.

        Raises ConfigError for a number of layers that the model does not have.
        """
        from albert_jax.model import sharing

        config, params = sharing.at_depth(self.config, self.params, num_layers)
        phases = tuple(replace(phase, depths=()) for phase in self.run_config.phases)
        run_config = replace(self.run_config, model=config, phases=phases)
        return replace(self, run_config=run_config, params=params)

    def __repr__(self) -> str:
        """One short line, without the parameters."""
        config, task = self.config, self.run_config.task
        name = "" if task is None else f"{task.name}, "
        step = "" if self.step is None else f" at step {self.step}"
        return (
            f"Model({name}{config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
            f"{config.vocab_size} tokens, from {self.source!r}{step})"
        )


def load(
    path: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: ParamsKind | None = None,
) -> Model:
    """Loads a model from a run folder or an exported directory.

    `step` and `weights` choose a checkpoint of a run, and its parameters or their average, by
    default the average where the run keeps one, because its evaluations are those of the average.
    An exported directory has only one set of parameters. Raises CheckpointError if there is no
    model, it is damaged, or the run has no such step or no averaged parameters, and ConfigError if
    JAX has no devices.

    >>> model = load(directory)
    >>> model.config.hidden_size, model.params["pooler"]["kernel"].shape
    (16, (16, 16))
    >>> model.vocabulary.decode(model.vocabulary.encode(["the file"])[0])
    'the file'
    """
    from albert_jax.parallel.hosts import available_devices

    available_devices()  # Otherwise the error would come from the first computation.
    if run_record.is_run(path):
        return _load_run(path, step, weights)
    if step != "newest" or weights is not None:
        raise CheckpointError(f"{path} is not a run folder: it has one step and one set of weights")
    if files.is_folder(path) and BEFORE_CONFIG.issuperset(files.names(path)):
        raise CheckpointError(
            f"{path} holds no model: if it is a run, let it save a checkpoint first"
        )
    from albert_jax.model_io import directories
    from albert_jax.model_io.weights import default_config

    loaded = directories.read(path)
    if loaded.vocabulary is None:
        raise CheckpointError(
            f"{path} has no vocabulary beside its weights: give it one with albert-jax import "
            "--vocabulary"
        )
    return Model(
        loaded.run_config or default_config(loaded.config),
        loaded.params,
        loaded.vocabulary,
        path,
        has_run_config=loaded.run_config is not None,
    )


def best_metric(config: Config) -> tuple[str, Literal["min", "max"]]:
    """The score that selects the best checkpoint of a run, and whether it is minimized."""
    if config.task is None:
        objective = config.phases[-1].objective
        if objective.mask_rate > 0:
            return "mlm_loss", "min"
        return ("word_loss" if objective.sentence_order == "none" else "sop_loss"), "min"
    from albert_jax.tasks import registry

    task = registry.get(config.task.name)
    return config.task.metrics[0], "max" if task.greater_is_better else "min"


def _load_run(
    path: str, step: int | Literal["best", "newest"], weights: ParamsKind | None
) -> Model:
    from albert_jax.checkpoint.manager import Checkpoints
    from albert_jax.model import albert
    from albert_jax.model_io.weights import check_vocabulary
    from albert_jax.tasks import registry
    from albert_jax.tasks.support import encoder

    config = configfile.load(files.join(path, "config.toml"))
    weights = weights or ("averaged" if config.optimizer.ema_decay else "trained")
    part = "ema" if weights == "averaged" else "params"
    if part == "ema" and not config.optimizer.ema_decay:
        raise CheckpointError(
            f"{path} keeps no averaged parameters (optimizer.ema_decay is 0): use the trained ones"
        )
    best, mode = best_metric(config)
    opened = Checkpoints(path, keep=1, best=best, best_mode=mode, read_only=True)
    with contextlib.closing(opened) as checkpoints:
        number = checkpoints.best_step() if step == "best" else None if step == "newest" else step
        if step == "best" and number is None:
            raise CheckpointError(f"{path}: no checkpoint was evaluated yet: choose a step")
        if config.task is None:
            shapes = albert.abstract_params(config.model)
        else:
            shapes = encoder.abstract_params(registry.create(config.task), config.model)
        restored = checkpoints.restore({part: shapes}, number, partial=True)
    assert restored is not None  # A reader of a run without checkpoints gets an error.
    run_record.check_checkpoint(path, restored.step, restored.record)
    vocabulary = run_record.load_vocabulary(path)
    check_vocabulary(vocabulary, config.model)
    return Model(config, restored.state[part], vocabulary, path, restored.step, weights=weights)
