"""Pretraining as a task of the one loop, and `run`, which puts a whole run together."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Trains `config` in the run folder `out`, or continues the run there.

    Args:
      config: The config, without a task.
      out: The run folder.
      init: A run or directory whose parameters are the initial weights.
      branch: "RUN@STEP" to start from the complete state of another run.
      allow_change: Fields in which the config may differ from the one that the run began with.

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
        facts={"data_order": order, "parent": branch, "init": init},
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
    held_out_scores = _HeldOutScores(config, held_out, vocabulary, reference, row_shards(mesh))

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
        evaluate=held_out_scores,
        count=count,
        attention=backend.name,
        reference_loss=reference.entropy,
        best=best_metric(config)[0],
        outputs=scoring.label_log_probs(config, None, backend) if held_out_scores.pairs else None,
    )


class _HeldOutScores:
    """Scores of the held-out rows and of the config's minimal pairs."""

    def __init__(
        self,
        config: Config,
        held_out: list[Corpus],
        vocabulary: Vocabulary,
        reference: evaluation.Reference,
        shards: int,
    ) -> None:
        self._config, self._held_out, self._vocabulary = config, held_out, vocabulary
        self._reference, self._shards = reference, shards
        self._batches: tuple[int, list[Batch]] | None = None
        self.pairs: list[scoring.MinimalPair] = []
        self._masked: list[scoring.MaskedToken] = []
        self._max_length = config.model.max_position_embeddings
        if config.run.minimal_pairs:
            self.pairs = scoring.read_minimal_pairs(config.run.minimal_pairs)
            self._masked = scoring.mask_each_token(
                vocabulary, *scoring.pair_sentences(self.pairs), self._max_length
            )

    def __call__(self, phase: int, evaluator: Evaluator) -> dict[str, float]:
        if self._batches is None or self._batches[0] != phase:
            self._batches = (phase, self._make_batches(phase))
        scores = evaluation.measure(self._batches[1], evaluator.sums, self._reference)
        if self.pairs:
            likelihoods = scoring.log_likelihoods(
                self._masked, evaluator.outputs, self._max_length, shards=self._shards
            )
            accuracies = scoring.pair_accuracy(self.pairs, likelihoods[::2], likelihoods[1::2])
            scores["pairs_accuracy"] = accuracies[scoring.ALL_PAIRS].value
        return scores

    def _make_batches(self, phase: int) -> list[Batch]:
        settings = self._config.phases[phase]
        batch_size = min(
            settings.batch_size // settings.gradient_accumulation_steps, MAX_EVAL_BATCH_SIZE
        )
        return evaluation.held_out_batches(
            self._held_out,
            settings,
            self._vocabulary,
            max_samples=self._config.run.max_eval_samples,
            batch_size=-(-batch_size // self._shards) * self._shards,
        )
