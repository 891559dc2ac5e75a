"""Pretraining as a task of the one loop, and `run`, which puts a whole run together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from albert_jax import files
from albert_jax.config import Config
from albert_jax.data.batches import pipeline, show
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.corpus.shards import DamagedRecord
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError, DataError
from albert_jax.evaluation import minimal_pairs
from albert_jax.evaluation import pretraining as evaluation
from albert_jax.inference import scoring
from albert_jax.model import albert, attention
from albert_jax.model.init import init_params
from albert_jax.model_io import run_record
from albert_jax.model_io.model import best_metric
from albert_jax.model_io.warm_start import initial_params_from
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.optim import schedule
from albert_jax.parallel import agreement
from albert_jax.parallel.mesh import row_shards
from albert_jax.train.replay import RecordedStep, ReopenedRun, RowText
from albert_jax.train.run import RunFolder, run_training, set_up, state_of_parent
from albert_jax.train.task import Batch, Evaluator, TrainingTask
from albert_jax.train.words_seen import steps_at_words

log = logging.getLogger(__name__)

MAX_EVAL_BATCH_SIZE = 256
"""Most held-out rows in a batch, over all devices."""
PLANNING_SECONDS = 1800.0
"""Time that the processes wait for each other to plan the order of the rows."""


def run(
    config: Config,
    out: str,
    *,
    init: str | None = None,
    parent: str | None = None,
    allow_change: tuple[str, ...] = (),
) -> None:
    """Trains `config`, which has no task, in the run folder `out`, or continues the run there.

    `init` is a run or directory whose parameters are the initial weights; `parent` is "RUN@STEP",
    to start from the complete state of another run; a run that is continued remembers both. In the
    fields `allow_change` the config may differ from the one that the run began with.

    Raises AlbertError of every kind; see train/loop.py.
    """
    # Everything that can be wrong is checked before a device is touched or a file written.
    config.validate()
    train = [Corpus.open(folder, "train") for folder in config.data.prepared]
    held_out = evaluation.held_out_corpora(train)
    vocabulary = train[0].vocabulary()
    if vocabulary.size != config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {config.model.vocab_size}, but {config.data.prepared[0]} was "
            f"prepared with a vocabulary of {vocabulary.size}: set it to that, or prepare again"
        )
    labels = train[0].columns.num_labels
    for phase in config.phases:
        if phase.objective.word_prediction != "none" and labels > config.model.word_vocab_size:
            raise ConfigError(
                f"model.word_vocab_size is {config.model.word_vocab_size}, but "
                f"{config.data.prepared[0]} has labels of {labels} words: set it to that or more, "
                "or prepare with --word-limit"
            )
    init, parent = run_record.starting_point(out, init, parent)
    parent_state = state_of_parent(parent, vocabulary) if parent else None
    config, mesh = set_up(config, out, {"--init": str(init), "--from": str(parent)})
    if config.data.on_damage == "skip":
        _leave_out_damage([*train, *held_out])
    else:
        _check_held_out(held_out)
    _warn_of_long_warmup(config)
    builders = _builders(config, train, vocabulary, RunFolder(out).row_counts)
    order = _agree_on_data(config, vocabulary, builders, held_out)
    run_training(
        config,
        pretraining_task(config, train, held_out, builders, vocabulary, init=init, mesh=mesh),
        out,
        mesh,
        facts={
            "data": [corpus.content for corpus in train],
            "data_order": order,
            "parent": parent,
            "init": init,
        },
        vocabulary=vocabulary,
        allow_change=allow_change,
        parent_state=parent_state,
    )


def reopen_run(past: RecordedStep, data: tuple[str, ...] = ()) -> tuple[RecordedStep, ReopenedRun]:
    """A pretraining run on its prepared folders, to do steps of it again.

    `data` tells where the folders lie now. Raises DataError and ConfigError.
    """
    config = past.config
    if data:
        config = replace(config, data=replace(config.data, prepared=data))
        config.validate()
    try:
        train = [Corpus.open(folder, "train") for folder in config.data.prepared]
    except DataError as error:
        raise DataError(f"{error}; or say with --data where the run's own folder lies") from error
    vocabulary = train[0].vocabulary()
    if vocabulary.size != config.model.vocab_size:
        raise DataError(
            f"{config.data.prepared[0]} has a vocabulary of {vocabulary.size}, but {past.folder} "
            f"one of {config.model.vocab_size}: name the folders of the run with --data"
        )
    if config.data.on_damage == "skip":
        _leave_out_damage(train)
    content = [corpus.content for corpus in train]
    # Rows of other text would be counted anew, and their counts written into the run's folder.
    own = content == past.record.get("data")
    builders = _builders(
        config, train, vocabulary, RunFolder(past.folder).row_counts if own else None
    )

    def text(step: int, batch: Batch, rows: Sequence[int]) -> list[RowText]:
        number, step_in_phase = config.phase_at(step)
        return [
            RowText(
                show.row_lines(batch, vocabulary, row),
                [str(place) for place in builders[number].documents(step_in_phase, row)],
            )
            for row in rows
        ]

    past = replace(past, config=config)
    init = past.record.get("init")
    task = pretraining_task(config, train, [], builders, vocabulary, init=init, mesh=past.mesh)
    order = [builder.order_hash() for builder in builders]
    facts = {"vocabulary": vocabulary.fingerprint, "data": content, "data_order": order}
    return past, ReopenedRun(task, facts, text)


def _warn_of_long_warmup(config: Config) -> None:
    warmup = schedule.warmup_steps(config)
    if warmup >= config.steps:
        log.warning(
            "the warm-up takes %d steps and the run has %d, so the learning rate never reaches its "
            "peak: shorten the one or lengthen the other",
            warmup,
            config.steps,
        )


def _builders(
    config: Config, train: list[Corpus], vocabulary: Vocabulary, counts: str | None
) -> list[BatchBuilder]:
    """The builder of each phase; `counts` is the folder of RowOrder."""
    first_steps = np.cumsum([0, *(phase.steps for phase in config.phases)]).tolist()
    return [
        BatchBuilder(
            train, vocabulary, phase, seed=config.seed, phase_index=number, counts=counts,
            first_step=first_steps[number],
        )
        for number, phase in enumerate(config.phases)
    ]  # fmt: skip


def _agree_on_data(
    config: Config, vocabulary: Vocabulary, builders: list[BatchBuilder], held_out: list[Corpus]
) -> list[str]:
    """The hashes of the orders of all phases; every process must have the same data."""
    order = [builder.order_hash() for builder in builders]
    data = {
        "vocabulary": vocabulary.fingerprint,
        "data order": " ".join(order),
        "held-out data": " ".join(corpus.content for corpus in held_out),
    }
    if config.run.minimal_pairs:
        data["minimal pairs"] = files.sha256(config.run.minimal_pairs)
    agreement.agree("the data", data, seconds=PLANNING_SECONDS)
    return order


def _leave_out_damage(corpora: list[Corpus]) -> None:
    """Leaves the documents of damaged records out, alike on every process.

    Process 0 reads all records. A record that is damaged on another host only, or later, ends the
    run like any other damage, because hosts that read different text would drift apart.
    """

    def find() -> list[list[int]]:
        for corpus in corpora:
            corpus.leave_out_damage()
        return [sorted(corpus.left_out) for corpus in corpora]

    found = agreement.on_process_0("damaged records", find)
    for corpus, windows in zip(corpora, found, strict=True):
        corpus.left_out = frozenset(windows)


def _check_held_out(corpora: list[Corpus]) -> None:
    """Reads the held-out records: they are few, and the first evaluation may be days away."""
    for corpus in corpora:
        try:
            corpus.check_records()
        except DamagedRecord as error:
            raise DataError(
                f"{error}; albert-jax pretrain ... --data.on-damage skip leaves its documents out"
            ) from error


def pretraining_task(
    config: Config,
    train: list[Corpus],
    held_out: list[Corpus],
    builders: list[BatchBuilder],
    vocabulary: Vocabulary,
    *,
    init: str | None,
    mesh: jax.sharding.Mesh,
) -> TrainingTask:
    """The objectives of the phases on prepared documents."""
    backend = attention.choose(config, mesh.devices.flat[0])
    reference = evaluation.Reference.from_corpora(train, vocabulary)
    milestones = steps_at_words(config, builders, vocabulary)
    pairs = []
    if config.run.minimal_pairs:
        pairs = minimal_pairs.read(config.run.minimal_pairs)

    def initial_params() -> Any:
        if init is None:
            return init_params(config.model, config.seed)
        return initial_params_from(init, config.model, vocabulary, seed=config.seed)

    def batches(phase: int, first_step: int, rows: np.ndarray) -> Iterator[Batch]:
        steps = config.phases[phase].steps
        return pipeline.batches(builders[phase], first_step, steps, rows, config.data.workers)

    def loss(phase: int, top_k: int = 1) -> Any:
        objective = config.phases[phase].objective
        return pretraining_loss(
            config.model, config.compute, backend, objective=objective, top_k=top_k,
            by_frequency=reference.by_frequency,
        )  # fmt: skip

    held_out_rows = _held_out_rows(config, held_out, vocabulary, row_shards(mesh))
    log_probs = scoring.label_log_probs(config.model, config.compute, backend, None)
    return TrainingTask(
        name="pretraining",
        abstract_params=albert.abstract_params(config.model),
        initial_params=initial_params,
        batches=batches,
        loss=loss,
        evaluation_loss=lambda phase: loss(phase, top_k=evaluation.TOP_K),
        evaluate=_held_out_scores(
            config, held_out_rows, vocabulary, reference, pairs, row_shards(mesh)
        ),
        count=lambda batch: _count(batch, vocabulary),
        attention=backend.name,
        summary=lambda phase: _summary(train, held_out_rows(phase)),
        left_out_documents=sum(c.documents_in(c.left_out) for c in (*train, *held_out)),
        reference_loss=reference.entropy,
        best=best_metric(config)[0],
        milestones=milestones,
        outputs=log_probs if pairs else None,
    )


def _count(batch: Batch, vocabulary: Vocabulary) -> dict[str, float]:
    """Tokens, positions, and masked tokens and bytes of a batch."""
    weights = batch["mlm_weights"]
    return {
        "tokens": float(np.count_nonzero(batch["segment_ids"])),
        "positions": float(batch["segment_ids"].size),
        "mlm_tokens": float(weights.sum()),
        "mlm_bytes": float(np.sum(weights * vocabulary.token_bytes[batch["mlm_labels"]])),
    }


def _summary(train: list[Corpus], held_out_rows: list[Batch]) -> str:
    """The text of a run, in a few words."""
    tokens = sum(corpus.num_tokens for corpus in train)
    documents = sum(corpus.num_documents for corpus in train)
    rows = sum(int(batch["segment_ids"].any(axis=1).sum()) for batch in held_out_rows)
    return f"{tokens:,} tokens in {documents:,} documents, {rows:,} held-out rows"


def _held_out_rows(
    config: Config, held_out: list[Corpus], vocabulary: Vocabulary, shards: int
) -> Callable[[int], list[Batch]]:
    """The held-out rows in the shape of a phase, in batches that divide over the devices."""

    @lru_cache(maxsize=1)
    def batches(number: int) -> list[Batch]:
        phase = config.phases[number]
        batch_size = min(phase.batch_size // phase.gradient_accumulation_steps, MAX_EVAL_BATCH_SIZE)
        return evaluation.held_out_batches(
            held_out,
            phase,
            vocabulary,
            max_samples=config.run.max_eval_samples,
            batch_size=-(-batch_size // shards) * shards,
        )

    return batches


def _held_out_scores(
    config: Config,
    batches: Callable[[int], list[Batch]],
    vocabulary: Vocabulary,
    reference: evaluation.Reference,
    pairs: list[minimal_pairs.MinimalPair],
    shards: int,
) -> Callable[[int, Evaluator], dict[str, float]]:
    """Scores of the held-out rows in the shape of a phase, and of minimal pairs."""
    max_length = config.model.max_position_embeddings
    sentences = []
    if pairs:  # A vocabulary of token ids encodes no text.
        texts = minimal_pairs.sentences(pairs)
        sentences = scoring.encode_sentences(vocabulary, *texts, max_length)

    def evaluate(number: int, evaluator: Evaluator) -> dict[str, float]:
        scores = evaluation.measure(batches(number), evaluator.sums, reference)
        if pairs:
            likelihoods = scoring.log_likelihoods(
                sentences, vocabulary, evaluator.outputs, max_length, shards=shards
            )
            credits = minimal_pairs.credits(likelihoods[::2], likelihoods[1::2])
            scores["minimal_pairs_accuracy"] = float(np.mean(credits))
        return scores

    return evaluate
