"""Pretraining as a task of the one loop, and `run`, which puts a whole run together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from albert_jax.config import Config
from albert_jax.data.batches import pipeline
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError
from albert_jax.evaluation import pretraining as evaluation
from albert_jax.inference import scoring
from albert_jax.model import albert, attention
from albert_jax.model.init import init_params
from albert_jax.model_io.model import best_metric
from albert_jax.model_io.warm_start import initial_params_from
from albert_jax.objectives.pretraining import pretraining_loss
from albert_jax.parallel import agreement
from albert_jax.parallel.mesh import row_shards
from albert_jax.train.run import RunFolder, run_training, set_up, state_of_parent
from albert_jax.train.task import Batch, Evaluator, TrainingTask

MAX_EVAL_BATCH_SIZE = 256
"""Most held-out rows in a batch, over all devices."""
PLANNING_SECONDS = 1800.0
"""How long the processes wait for each other to plan the order of the rows."""


def run(
    config: Config,
    out: str,
    *,
    init: str | None = None,
    branch: str | None = None,
    allow_change: tuple[str, ...] = (),
) -> None:
    """Trains `config`, which has no task, in the run folder `out`, or continues the run there.

    `init` is a run or directory whose parameters are the initial weights; `branch` is "RUN@STEP",
    to start from the complete state of another run. In the fields `allow_change` the config may
    differ from the one that the run began with.

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
    parent_state = state_of_parent(branch) if branch else None
    mesh = set_up(config, out, {"--init": str(init), "--from": str(branch)})
    counts = RunFolder(out).row_counts
    builders = [
        BatchBuilder(train, vocabulary, phase, seed=config.seed, phase_index=number, counts=counts)
        for number, phase in enumerate(config.phases)
    ]
    order = [builder.order_hash() for builder in builders]
    data = {"vocabulary": vocabulary.fingerprint, "data order": " ".join(order)}
    agreement.agree("the data", data, seconds=PLANNING_SECONDS)
    run_training(
        config,
        pretraining_task(config, train, held_out, builders, vocabulary, init=init, mesh=mesh),
        out,
        mesh,
        facts={
            "data": [corpus.content for corpus in train],
            "data_order": order,
            "parent": branch,
            "init": init,
        },
        vocabulary=vocabulary,
        allow_change=allow_change,
        parent_state=parent_state,
    )


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
    pairs = []
    if config.run.minimal_pairs:
        pairs = scoring.read_minimal_pairs(config.run.minimal_pairs)

    def initial_params() -> Any:
        if init is None:
            return init_params(config.model, config.seed)
        return initial_params_from(init, config.model, vocabulary, seed=config.seed)

    def batches(phase: int, first_step: int, rows: np.ndarray) -> Iterator[Batch]:
        steps = config.phases[phase].steps
        return pipeline.batches(builders[phase], first_step, steps, rows, config.data.workers)

    def loss(phase: int, top: int = 1) -> Any:
        objective = config.phases[phase].objective
        return pretraining_loss(config.model, config.compute, backend, objective=objective, top=top)

    def count(batch: Batch) -> dict[str, float]:
        weights = batch["mlm_weights"]
        return {
            "tokens": float(np.count_nonzero(batch["segment_ids"])),
            "positions": float(batch["segment_ids"].size),
            "mlm_tokens": float(weights.sum()),
            "mlm_bytes": float(np.sum(weights * vocabulary.token_bytes[batch["mlm_labels"]])),
        }

    return TrainingTask(
        name="pretraining",
        abstract_params=albert.abstract_params(config.model),
        initial_params=initial_params,
        batches=batches,
        loss=loss,
        evaluation_loss=lambda phase: loss(phase, top=evaluation.TOP),
        evaluate=_held_out_scores(config, held_out, vocabulary, reference, pairs, row_shards(mesh)),
        count=count,
        attention=backend.name,
        reference_loss=reference.entropy,
        best=best_metric(config)[0],
        outputs=scoring.label_log_probs(config, None, backend) if pairs else None,
    )


def _held_out_scores(
    config: Config,
    held_out: list[Corpus],
    vocabulary: Vocabulary,
    reference: evaluation.Reference,
    pairs: list[scoring.MinimalPair],
    shards: int,
) -> Callable[[int, Evaluator], dict[str, float]]:
    """Scores of the held-out rows in the shape of a phase, and of minimal pairs."""
    max_length = config.model.max_position_embeddings
    masked = scoring.mask_each_token(vocabulary, *scoring.pair_sentences(pairs), max_length)

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

    def evaluate(number: int, evaluator: Evaluator) -> dict[str, float]:
        scores = evaluation.measure(batches(number), evaluator.sums, reference)
        if pairs:
            likelihoods = scoring.log_likelihoods(
                masked, evaluator.outputs, max_length, shards=shards
            )
            accuracies = scoring.pair_accuracy(pairs, likelihoods[::2], likelihoods[1::2])
            scores["pairs_accuracy"] = accuracies[scoring.ALL_PAIRS].value
        return scores

    return evaluate
