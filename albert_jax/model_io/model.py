"""A model from wherever it lies: a run, our own export, or a directory of Transformers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from albert_jax import configfile, files
from albert_jax.config import Config, ModelConfig
from albert_jax.errors import CheckpointError

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

BEST = "mlm_loss"
"""The number whose smallest value marks the best checkpoint of a pretraining run; of a fine-tuning
run it is the largest of the first of task.metrics."""

Weights = Literal["trained", "averaged"]


@dataclass(frozen=True, repr=False)
class Model:
    """A network that can be applied: its structure, its parameters, its vocabulary.

    >>> load(directory)
    Model(2 layers, hidden size 16, 64 tokens, from '...')
    """

    run_config: Config
    """The whole config that it was trained with; of a foreign directory only the model counts."""
    params: dict[str, Any]
    """Nested dict of float32 arrays."""
    vocabulary: Vocabulary
    source: str
    """Where it was read."""
    step: int | None = None
    """Steps it was trained, if it came from a run."""

    @property
    def config(self) -> ModelConfig:
        """The structure of the network."""
        return self.run_config.model

    def at_depth(self, num_layers: int) -> Model:
        """The model that consists of the first `num_layers` layers, as `encode` applies them.

        Raises ConfigError for a number of layers that the model does not have.
        """
        from albert_jax.model import depth

        config, params = depth.at_depth(self.config, self.params, num_layers)
        run_config = replace(self.run_config, model=config)
        return replace(self, run_config=run_config, params=params)

    def __repr__(self) -> str:
        """One short line, without the parameters."""
        config, task = self.config, self.run_config.task
        step = "" if self.step is None else f" at step {self.step}"
        return (
            f"Model({'' if task is None else task.name + ', '}{config.num_hidden_layers} layers, "
            f"hidden size {config.hidden_size}, {config.vocab_size} tokens, "
            f"from {self.source!r}{step})"
        )


def load(
    path: str, *, step: int | Literal["best", "newest"] = "newest", weights: Weights = "trained"
) -> Model:
    """Reads a model from a run folder or an exported directory.

    `step` and `weights` choose among a run's checkpoints, and whether its parameters or their
    average; an exported directory has one set only.

    Raises:
      CheckpointError: nothing of ours or Transformers' lies there, or it is damaged, or the run
        has no such step or no averaged parameters.

    >>> model = load(directory)
    >>> model.config.hidden_size, model.params["pooler"]["kernel"].shape
    (16, (16, 16))
    >>> model.vocabulary.decode(model.vocabulary.encode(["the file"])[0])
    'the file'
    """
    if is_run(path):
        return _load_run(path, step, weights)
    if step != "newest" or weights != "trained":
        raise CheckpointError(f"{path} is no run folder: it has one step and one set of weights")
    from albert_jax.model_io import native

    run_config, params, vocabulary = native.load_directory(path)
    if vocabulary is None:
        raise CheckpointError(
            f"{path} has no vocabulary beside its weights: give it one with albert-jax import "
            "--vocabulary"
        )
    return Model(run_config, params, vocabulary, path)


def is_run(path: str) -> bool:
    """Whether a run has begun in this folder."""
    names = files.names(path) if files.is_folder(path) else []
    return "config.toml" in names and "record.json" in names


def _load_run(path: str, step: int | Literal["best", "newest"], weights: Weights) -> Model:
    from albert_jax.checkpoint.manager import Checkpoints
    from albert_jax.data.vocabularies import vocabulary as vocabularies
    from albert_jax.model import albert
    from albert_jax.tasks import registry
    from albert_jax.tasks.encoder import abstract_params

    config = configfile.load(files.join(path, "config.toml"))
    task = config.task
    shapes = albert.abstract_params(config.model)
    best, mode = BEST, "min"
    if task is not None:
        finetuned = registry.get(task.name)
        shapes = abstract_params(finetuned, config.model, task)
        best, mode = task.metrics[0], "max" if finetuned.greater_is_better else "min"
    checkpoints = Checkpoints(path, keep=1, best=best, best_mode=mode, read_only=True)
    try:
        wanted = checkpoints.best_step() if step == "best" else None if step == "newest" else step
        if step == "best" and wanted is None:
            raise CheckpointError(f"{path}: no checkpoint was evaluated yet: choose a step")
        if weights == "averaged" and not config.optimizer.ema_decay:
            raise CheckpointError(
                f"{path} keeps no averaged parameters (optimizer.ema_decay is 0): "
                "take the trained ones"
            )
        part = "ema" if weights == "averaged" else "params"
        restored = checkpoints.restore({part: shapes}, wanted, partial=True)
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{path} has no whole checkpoint yet: let the run save one")
    vocabulary = vocabularies.load(files.join(path, "vocabulary"))
    return Model(config, restored.state[part], vocabulary, path, restored.step)
