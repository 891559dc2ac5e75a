"""Fine-tuning as a task of the training loop, and `run`, which puts a whole run together."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_jax.config import Config
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.finetuning import network, run_config, summary
from albert_jax.finetuning.batches import TrainingBatches, TrainingFeatures
from albert_jax.model_io import run_record
from albert_jax.tasks import registry
from albert_jax.tasks.support import prediction
from albert_jax.tasks.task import AnyTask
from albert_jax.train.task import Batch, Evaluator, Params, TrainingTask

if TYPE_CHECKING:
    from albert_jax.train.replay import RecordedStep, ReopenedRun

EVALUATION_BATCH_SIZE = 32


def run(
    config: Config,
    out: str,
    *,
    init: str | None = None,
    num_layers: int | None = None,
    max_steps: int | None = None,
    allow_change: tuple[str, ...] = (),
    given: Collection[str] = (),
) -> None:
    """Fine-tunes on the config's task in the run folder `out`, or continues the run there.

    Weights and vocabulary are those of `init`, a run or directory. Without it a small random
    network is trained, with a vocabulary of the training texts or the teacher's. `max_steps` ends
    the run early; for `allow_change` see RunFolder.open. What is not in `given` is adapted.
    """
    # Everything that can be wrong is checked before a device is touched or a file written.
    config.validate()
    from albert_jax.parallel import hosts
    from albert_jax.train.run import run_training, set_up

    init, _ = run_record.starting_point(out, init)
    task, train, dev = _read(config, init, max_steps)
    hosts.initialize_distributed()
    teacher = _load_teacher(task)
    continued = run_record.is_run(out)
    source, new = out if continued else init, ""
    if source is None:
        known, texts = teacher and teacher.vocabulary, _texts(task, train)
        model, vocabulary, new = network.new_network(config.model, texts, known, given)
    else:
        chosen = None if continued else given
        model, vocabulary = network.pretrained_network(source, config.model, chosen)
    config = replace(config, model=run_config.at_depth(model, num_layers), task=task.config)
    config, fitted = run_config.fit_to_weights(config, given, source or "the new network", teacher)
    task = registry.create(run_config.check_task(config, max_steps))
    config.validate()
    augmented = _augmented(task, train, config.seed)
    facts = {"data_order": digest(train), "dev_examples": digest(dev), "init": init}
    facts |= _of_other_models(teacher, augmented)
    counts = len(train), len(dev)
    train += augmented
    train_features = TrainingFeatures(task, vocabulary, train, config)
    config, more = run_config.complete(config, given, train_features, max_steps)
    # A label or text of the dev examples that cannot be read is reported now, not after an hour.
    dev_features = prediction.featurize(task, vocabulary, dev, config.phases[-1].sequence_length)
    initial = functools.cache(lambda: network.initial_params(config, task, vocabulary, init))
    if not continued:
        initial()  # Weights that do not fit are reported before the run folder is made.
    # The augmented examples: hosts whose models drew other words must not train together.
    inputs = {"the examples": digest(train), "the dev examples": facts["dev_examples"]}
    config, mesh = set_up(config, out, {"--init": str(init), **inputs})
    batches, answers = TrainingBatches(train_features, config), []
    features = train_features.of_phase(len(config.phases) - 1), dev_features
    summary.say(out, new, fitted, more, summary.of_examples(config, task, counts, features))
    trained = finetuning_task(config, task, batches, dev, mesh, initial, teacher, answers=answers)
    run_training(
        config, trained, out, mesh, facts=facts, vocabulary=vocabulary, allow_change=allow_change
    )
    summary.say(out, summary.of_single_answer(config, answers, init))


def _texts(task: AnyTask, examples: Sequence[Any]) -> list[str]:
    return [text for example in examples for text in task.texts(example) if text]


def reopen_run(past: RecordedStep, data: str | None = None) -> tuple[RecordedStep, ReopenedRun]:
    """A fine-tuning run on its training examples, to do steps of it again.

    `data` tells where the examples lie now. Raises DataError, ConfigError and CheckpointError.
    """
    from albert_jax.train.replay import ReopenedRun, RowText

    settings = past.config.task
    assert settings is not None
    task = registry.create(replace(settings, train=data or settings.train))
    config = replace(past.config, task=task.config)
    try:
        train = task.read_examples(task.config.train, labelled=True)
    except DataError as error:
        raise DataError(f"{error}; or say with --data where the run's own examples are") from error
    vocabulary = run_record.load_vocabulary(past.folder)
    facts = {"data_order": digest(train), "vocabulary": vocabulary.fingerprint}
    train += _augmented(task, train, config.seed)
    batches = TrainingBatches(TrainingFeatures(task, vocabulary, train, config), config)
    init = past.record.get("init")
    initial = functools.partial(network.initial_params, config, task, vocabulary, init)
    trained = finetuning_task(config, task, batches, (), past.mesh, initial, _load_teacher(task))

    def text(step: int, batch: Batch, rows: Sequence[int]) -> list[RowText]:
        return [
            RowText(
                summary.of_row(batch, vocabulary, row),
                summary.of_origin(task, batches, train, config.phase_at(step)[0], step, row),
            )
            for row in rows
        ]

    return replace(past, config=config), ReopenedRun(trained, facts, text)


def finetuning_task(
    config: Config,
    task: AnyTask,
    batches: TrainingBatches,
    dev: Sequence[Any],
    mesh: Any,
    initial_params: Callable[[], Params],
    teacher: Any = None,
    *,
    answers: list[str] | None = None,
) -> TrainingTask:
    """A task as the training loop knows it; `config` is complete.

    Each evaluation adds to `answers` the one answer that it got for all examples, or "".
    """
    from albert_jax.model import attention
    from albert_jax.model_io.model import best_metric
    from albert_jax.parallel.mesh import row_shards
    from albert_jax.tasks.support.encoder import Encoder, abstract_params

    encoder = Encoder(config.model, config.compute, attention.choose(config, mesh.devices.flat[0]))
    task_loss, add_columns = task.loss, None
    if teacher is not None:
        from albert_jax.finetuning import distillation

        task_loss = functools.partial(distillation.distillation_loss, task)
        add_columns = distillation.teacher_columns(teacher, config, batches.features.vocabulary)
    first_steps = np.cumsum([0, *(phase.steps for phase in config.phases)])

    def loss(params: Any, batch: Any, *, dropout: Any, num_layers: int | None) -> Any:
        return task_loss(encoder.bind(params, dropout, num_layers), batch)

    def make_batches(phase: int, first: int, rows: np.ndarray) -> Iterator[Batch]:
        for step in range(first, config.phases[phase].steps):
            batch = batches.batch(phase, int(first_steps[phase]) + step, rows)
            yield add_columns(batch) if add_columns else batch

    best, best_mode = best_metric(config)
    return TrainingTask(
        name=task.name,
        abstract_params=abstract_params(task, config.model),
        initial_params=initial_params,
        batches=make_batches,
        loss=lambda phase: loss,
        evaluation_loss=lambda phase: loss,
        evaluate=_evaluation(
            config, task, batches.features.vocabulary, dev, row_shards(mesh), answers
        ),
        count=_count,
        attention=encoder.backend.name,
        best=best,
        best_mode=best_mode,
        outputs=lambda params, batch: task.outputs(encoder.bind(params), batch),
    )


def _evaluation(
    config: Config,
    task: AnyTask,
    vocabulary: Vocabulary,
    dev: Sequence[Any],
    shards: int,
    answers: list[str] | None,
) -> Callable[[int, Evaluator], dict[str, float]]:
    """Scores of the dev examples in the rows of a phase; see `finetuning_task` for `answers`."""
    held_out = prediction.evenly_spaced(dev, config.run.max_eval_samples)
    features = functools.cache(
        lambda length: prediction.featurize(task, vocabulary, held_out, length)
    )

    def evaluate(phase: int, evaluator: Evaluator) -> dict[str, float]:
        settings = config.phases[phase]
        at_once = settings.batch_size // settings.gradient_accumulation_steps
        size = -(-min(EVALUATION_BATCH_SIZE, len(held_out), at_once) // shards) * shards
        predictions = prediction.predict(
            task, vocabulary, held_out, evaluator.outputs,
            length=settings.sequence_length, batch_size=size,
            features=features(settings.sequence_length),
        )  # fmt: skip
        scores, answer = task.evaluate(held_out, predictions)
        if answers is not None:
            answers.append(answer)
        return scores

    return evaluate


def _count(batch: Batch) -> dict[str, float]:
    real = batch["segment_ids"]
    return {"tokens": float(np.count_nonzero(real)), "positions": float(real.size)}


def _of_other_models(teacher: Any, augmented: Sequence[Any]) -> dict[str, str]:
    """Names of the models that a run learns from, for its record: they may be trained further."""
    facts = {} if teacher is None else {"teacher": f"{teacher.source}@{teacher.step}"}
    return facts | ({"augmented_examples": digest(augmented)} if augmented else {})


def _load_teacher(task: AnyTask) -> Any:
    """The model of the task's teacher, or None."""
    from albert_jax.model_io import model as models

    return models.load(task.teacher) if task.teacher else None


def _augmented(task: AnyTask, examples: Sequence[Any], seed: int) -> list[Any]:
    """The changed copies of the training examples that the task asks for."""
    if not task.augment:
        return []
    from albert_jax.finetuning.augmentation import augment
    from albert_jax.model_io import model as models

    return augment(models.load(task.config.augment_from), examples, task.config, seed)


def digest(examples: Sequence[Any]) -> str:
    """SHA-256 (hex) of examples in their order, wherever their file lies."""
    result = hashlib.sha256()
    for example in examples:
        result.update(repr(replace(example, where="")).encode())
    return result.hexdigest()


def _read(config: Config, init: str | None, max_steps: int | None) -> tuple[AnyTask, list, list]:
    """The config's task with its labels, and its training and dev examples."""
    task = _with_models(registry.create(run_config.check_task(config, max_steps)), init)
    train = task.read_examples(task.config.train, labelled=True)
    dev = task.read_examples(task.config.dev, labelled=True)
    return task.resolve(train, dev), train, dev


def _with_models(task: AnyTask, init: str | None) -> AnyTask:
    """The task with the labels of its teacher, and with the model that augments."""
    if task.teacher:
        from albert_jax.finetuning.distillation import with_teacher_labels

        task = with_teacher_labels(task)
    if task.augment and not task.config.augment_from:
        if init is None:
            raise ConfigError(
                "task.augment is above 0, but there is neither --init nor task.augment_from: name "
                "a model with its masked-language head"
            )
        task = task.with_config(augment_from=init)
    return task
