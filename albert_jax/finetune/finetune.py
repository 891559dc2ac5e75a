"""Fine-tuning as a task for the one loop, and `run`, which puts a whole run together."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax.config import Config
from albert_jax.data import counter_rng as random
from albert_jax.errors import ConfigError
from albert_jax.finetune import augmentation as augmenting
from albert_jax.finetune import setup as settling
from albert_jax.finetune import teacher as teaching
from albert_jax.tasks import batching, metrics, prediction
from albert_jax.tasks.families import Family
from albert_jax.tasks.old_features import fitting_length
from albert_jax.tasks.old_registry import TaskKind
from albert_jax.tasks.old_registry import task as registered
from albert_jax.train.task import Batch, Evaluator, Params, TrainingTask

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

EVALUATION_ROWS = 32
"""Rows of the batches in which held-out examples are looked at."""
UNIT = 16
"""Training batches that are shorter than the phase's rows have a multiple of this."""


def run(
    config: Config,
    out: str,
    *,
    init: str | None = None,
    num_layers: int | None = None,
    max_steps: int | None = None,
    allow_change: tuple[str, ...] = (),
) -> None:
    """Fine-tunes on the config's task in the run folder `out`, or continues the run there.

    `init` is a run or directory whose weights and vocabulary are the start; None: a small random
    network and a vocabulary of the training texts (with a teacher: its own). `passes` is the
    depth (None: that of the weights), `max_steps` ends the run early.

    Raises AlbertError of every kind; see train/loop.py.
    """
    # Everything that can be wrong is looked at before a device is touched or a file written.
    config.validate()
    given = settling.given_task(config, max_steps)
    kind = registered(given.name)
    if given.teacher:
        given = teaching.with_labels(given)
    if given.augment and not given.augment_from:
        if init is None:
            raise ConfigError(
                "task.augment is above 0, but there is neither --init nor task.augment_from: name "
                "a model with its masked-language head"
            )
        given = replace(given, augment_from=init)
    if given.name == "generation":
        metrics.bleu_chrf(["a"], ["a"])  # says at once if there is nothing to score it with
    train = kind.family.read(given.train, given, True)
    dev = kind.family.read(given.dev, given, True)
    settings = settling.task(given, kind, train, dev)

    from albert_jax.model.depth import check_depth
    from albert_jax.model_io import model as loading
    from albert_jax.parallel import hosts
    from albert_jax.train.run import run_training, set_up

    hosts.join()
    teacher = loading.load(settings.teacher) if settings.teacher else None
    continued = loading.is_run(out)
    if continued or init is not None:
        source = out if continued else str(init)
        model, vocabulary = settling.network_of(source, config.model, given=not continued)
    else:
        texts = [text for example in train for text in kind.family.texts(example) if text]
        known = teacher and teacher.vocabulary
        model, vocabulary = settling.new_network(config.model, texts, known)
    if num_layers is not None:
        check_depth(model, num_layers)
        model = replace(model, num_hidden_layers=num_layers)
    config = replace(config, model=model, task=settings)
    config.validate()
    taught = teaching.columns(teacher, config, vocabulary) if teacher else None
    order = digest(train)
    if settings.augment:
        train += augmenting.augmented(
            loading.load(settings.augment_from),
            train,
            copies=settings.augment,
            share=settings.augment_share,
            seed=config.seed,
        )
    features = Features(kind.family, vocabulary, train, config)
    config = settling.with_steps(config, features.count(), features.per_batch(), max_steps)
    # A label or text of the held-out examples that cannot be read is told now, not after an hour.
    kind.family.features(
        vocabulary,
        dev,
        config.phases[-1].sequence_length,
        kind.family.for_evaluation(settings),
        settings.labels,
    )
    initial = functools.cache(lambda: start_weights(config, kind, vocabulary, init))
    if not continued:
        initial()
    # With the augmented ones: hosts whose models drew other words must not train together.
    mesh = set_up(config, out, {"--init": str(init), "the examples": digest(train)})
    task = finetuning_task(config, kind, features, dev, mesh, initial, taught)
    run_training(
        config,
        task,
        out,
        mesh,
        facts={"data_order": order, "init": init},
        vocabulary=vocabulary,
        allow_change=allow_change,
    )


class Features:
    """Training examples as rows of batches."""

    def __init__(
        self, family: Family, vocabulary: Vocabulary, examples: Sequence[Any], config: Config
    ) -> None:
        assert config.task is not None
        self.family, self.vocabulary = family, vocabulary
        self._examples, self._task, self._seed = examples, config.task, config.seed
        self._phases = [(phase.sequence_length, phase.batch_size) for phase in config.phases]
        self._made: dict[int, list[Any]] = {}

    def of(self, phase: int) -> list[Any]:
        """The features of a phase."""
        most = self._phases[phase][0]
        if most not in self._made:
            task = self._task
            self._made[most] = self.family.features(
                self.vocabulary, self._examples, most, task, task.labels
            )
        return self._made[most]

    def count(self) -> int:
        """Features of the first phase: what an epoch goes through once."""
        return len(self.of(0))

    def per_batch(self) -> int:
        """Features in a batch of the first phase."""
        return self._phases[0][1] * self.family.per_row(self._task)

    def batch(self, phase: int, step: int, rows: np.ndarray) -> Batch:
        """The rows with these numbers of the batch of a step of the run: a pure function.

        Rows are as long as the longest text of the batch needs, in quarters of the phase's
        length: at most four programs are compiled.
        """
        features, (most, count) = self.of(phase), self._phases[phase]
        numbers = batching.batch_examples(
            self._seed, step, len(features), count * self.family.per_row(self._task)
        )
        chosen = [features[i] for i in numbers if i != batching.NOTHING]
        quarter = -(-most // (4 * UNIT)) * UNIT
        longest = max(map(self.family.tokens, chosen))
        length = fitting_length(longest, most, range(quarter, most, quarter))
        key = random.key(self._seed, 0xF17E, step)
        generator = np.random.Generator(np.random.Philox(key=key))
        # Every host draws the whole batch, so that no row depends on how many hosts there are.
        whole = self.family.batch(self.vocabulary, chosen, length, count, self._task, generator)
        return {name: column[rows] for name, column in whole.items()}


def finetuning_task(
    config: Config,
    kind: TaskKind,
    features: Features,
    dev: Sequence[Any],
    mesh: Any,
    initial_params: Callable[[], Params],
    taught: Callable[[Batch], Batch] | None = None,
) -> TrainingTask:
    """A family of the registry as a task of the loop; `config` is settled.

    `taught` adds what a teacher says to the rows of a batch (teaching.py).
    """
    from albert_jax.model import attention
    from albert_jax.parallel.mesh import row_shards
    from albert_jax.tasks.losses import Forward

    assert config.task is not None
    settings, family = config.task, kind.family
    backend = attention.choose(config, mesh.devices.flat[0])
    forward = Forward(config.model, config.compute, backend, settings.pooling)
    loss = kind.loss(forward, settings)
    firsts = np.cumsum([0, *(phase.steps for phase in config.phases)])
    held_out = dev[: config.run.max_eval_samples]
    shards = row_shards(mesh)

    def batches(phase: int, first: int, rows: np.ndarray) -> Iterator[Batch]:
        for inside in range(first, config.phases[phase].steps):
            batch = features.batch(phase, int(firsts[phase]) + inside, rows)
            yield taught(batch) if taught else batch

    def evaluate(phase: int, evaluator: Evaluator) -> dict[str, float]:
        found = prediction.predict(
            family,
            features.vocabulary,
            held_out,
            settings,
            settings.labels,
            evaluator.outputs,
            length=config.phases[phase].sequence_length,
            rows=-(-min(EVALUATION_ROWS, len(held_out), at_once(phase)) // shards) * shards,
        )
        scores = family.score(held_out, found, settings.labels)
        return {name: scores[name] for name in settings.metrics if name in scores} | scores

    def at_once(phase: int) -> int:
        return config.phases[phase].batch_size // config.phases[phase].gradient_accumulation_steps

    def count(batch: Batch) -> dict[str, float]:
        real = batch["segment_ids"]
        return {"tokens": float(np.count_nonzero(real)), "positions": float(real.size)}

    return TrainingTask(
        name=settings.name,
        abstract_params=kind.abstract_params(config.model, settings),
        initial_params=initial_params,
        batches=batches,
        loss=lambda phase: loss,
        evaluation_loss=lambda phase: loss,
        evaluate=evaluate,
        count=count,
        attention=backend.name,
        best=settings.metrics[0],
        best_mode="max",
        outputs=lambda params, batch: kind.outputs(forward, params, batch, settings, None),
    )


def start_weights(
    config: Config, kind: TaskKind, vocabulary: Vocabulary, init: str | None
) -> Params:
    """The weights of `init` (None: random ones) and a new head; raises CheckpointError."""
    from albert_jax.model.init import init_params
    from albert_jax.model_io.adapt import initial_params_from

    model, task = config.model, config.task
    if task is None:
        raise ConfigError("the config has no task")
    if init is None:
        whole = init_params(model, config.seed)
    else:
        whole = initial_params_from(init, model, vocabulary, seed=config.seed)
    head = kind.new_head(model.hidden_size, task.labels, config.seed, model.initializer_range)
    kept = {name: whole[name] for name in ("embeddings", "encoder", *kind.units(task))}
    return kept | ({"head": head} if head else {})


def digest(examples: Sequence[Any]) -> str:
    """SHA-256 (hex) of examples in their order, wherever their file lies."""
    told = hashlib.sha256()
    for example in examples:
        told.update(repr(replace(example, where="")).encode())
    return told.hexdigest()
