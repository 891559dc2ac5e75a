"""Pretraining as a task for the one loop, and `run`, which puts a whole run together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from albert_jax.config import Config, leaves
from albert_jax.data.batches import pipeline
from albert_jax.data.batches.rows import RowMaker
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError
from albert_jax.evaluation.pretraining import held_out_corpora
from albert_jax.train.task import Batch, Network, Task

EVALUATION_ROWS = 256
"""Held-out rows in a batch at most, over all devices."""


def run(
    config: Config,
    out: str,
    *,
    init: str | None = None,
    branch: str | None = None,
    allow_change: tuple[str, ...] = (),
) -> None:
    """Trains `config` in the run folder `out`, or continues the run there.

    `init` is a run or directory whose parameters are the start weights, `branch` ("RUN@STEP")
    a run whose whole state at a step is the start of this one. `allow_change` names fields in
    which the config may differ from the one the run began with.

    Raises AlbertError of every kind; see train/loop.py.
    """
    # Everything that can be wrong is looked at before a device is touched or a file written.
    config.validate()
    train = [Corpus.open(folder, "train") for folder in config.data.prepared]
    held_out = held_out_corpora(train)
    vocabulary = train[0].vocabulary()
    if vocabulary.size != config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {config.model.vocab_size}, but {config.data.prepared[0]} was "
            f"prepared with a vocabulary of {vocabulary.size}: set it to that, or prepare again"
        )

    from albert_jax import files
    from albert_jax.observe import environment
    from albert_jax.parallel import hosts
    from albert_jax.parallel.mesh import check_rows, make_mesh
    from albert_jax.train import branch as start
    from albert_jax.train.run import whole_run
    from albert_jax.train.run_folder import refuse_strangers

    hosts.join()
    asked = {"--out": out, "--init": str(init), "--from": str(branch)}
    asked |= {path: str(value) for path, value in leaves(config)}
    asked |= {f"package {name}": found for name, found in environment.versions().items()}
    hosts.agree("the configuration", asked)
    mesh = make_mesh(config.parallel)
    for number, phase in enumerate(config.phases):
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, f"phases.{number}")
    refuse_strangers(out)
    # Planning an epoch takes minutes on a large corpus: the row counts stay with the run.
    counts = files.join(out, "rows")
    makers = [
        RowMaker(train, vocabulary, phase, seed=config.seed, phase_index=number, counts=counts)
        for number, phase in enumerate(config.phases)
    ]
    order = [maker.order_hash() for maker in makers]
    data = {"vocabulary": vocabulary.fingerprint, "data order": " ".join(order)}
    hosts.agree("the data", data, seconds=1800)
    task = pretraining_task(config, train, held_out, makers, vocabulary, init=init, mesh=mesh)
    facts: dict[str, Any] = {
        "task": task.name,
        "vocabulary": vocabulary.fingerprint,
        "data_order": order,
        "environment": environment.describe(),
        "parent": branch,
        "init": init,
    }
    whole_run(
        config,
        task,
        out,
        mesh,
        facts=facts,
        vocabulary=vocabulary,
        allow_change=allow_change,
        start=start.branch(branch) if branch else None,
    )


def pretraining_task(
    config: Config,
    train: list[Corpus],
    held_out: list[Corpus],
    makers: list[RowMaker],
    vocabulary: Vocabulary,
    *,
    init: str | None,
    mesh: Any,
) -> Task:
    """Masked-language modelling and sentence order on prepared documents."""
    from albert_jax.evaluation import pretraining as evaluation
    from albert_jax.inference import scoring
    from albert_jax.model import albert, attention
    from albert_jax.model.init import init_params
    from albert_jax.objectives.pretraining import pretraining_loss
    from albert_jax.parallel.mesh import row_shards

    backend = attention.choose(config, mesh.devices.flat[0])
    reference = evaluation.Reference.from_corpora(train, vocabulary)

    def initial_params() -> Any:
        if init is None:
            return init_params(config.model, config.seed)
        from albert_jax.model_io.adapt import initial_params_from

        return initial_params_from(init, config.model, vocabulary, seed=config.seed)

    def batches(phase: int, first: int, rows: np.ndarray) -> Iterator[Batch]:
        return pipeline.batches(
            makers[phase], first, config.phases[phase].steps, rows, config.data.workers
        )

    def count(batch: Batch) -> dict[str, float]:
        weights = batch["mlm_weights"]
        return {
            "tokens": float(np.count_nonzero(batch["segment_ids"])),
            "places": float(batch["segment_ids"].size),
            "mlm_pieces": float(weights.sum()),
            "mlm_bytes": float(np.sum(weights * vocabulary.token_bytes[batch["mlm_labels"]])),
        }

    kept: dict[int, list[Batch]] = {}
    pairs: list[scoring.MinimalPair] = []
    masked: list[scoring.MaskedToken] = []
    max_length = config.model.max_position_embeddings
    if config.run.minimal_pairs:
        pairs = scoring.read_minimal_pairs(config.run.minimal_pairs)
        masked = scoring.mask_each_token(vocabulary, *scoring.pair_sentences(pairs), max_length)

    def evaluate(phase: int, network: Network) -> dict[str, float]:
        if phase not in kept:
            settings = config.phases[phase]
            shards = row_shards(mesh)
            at_once = min(
                settings.batch_size // settings.gradient_accumulation_steps, EVALUATION_ROWS
            )
            batch_rows = -(-at_once // shards) * shards
            kept.clear()
            kept[phase] = evaluation.held_out_batches(
                held_out,
                settings,
                vocabulary,
                max_samples=config.run.max_eval_samples,
                batch_size=batch_rows,
            )
        numbers = evaluation.measure(kept[phase], network.sums, reference)
        if pairs:
            scores = scoring.log_likelihoods(
                masked, network.outputs, max_length, shards=row_shards(mesh)
            )
            accuracies = scoring.pair_accuracy(pairs, scores[::2], scores[1::2])
            numbers["pairs_accuracy"] = accuracies[scoring.ALL_PAIRS].value
        return numbers

    return Task(
        name="pretraining",
        abstract_params=albert.abstract_params(config.model),
        initial_params=initial_params,
        batches=batches,
        loss=pretraining_loss(config.model, config.compute, backend),
        evaluation_loss=pretraining_loss(config.model, config.compute, backend, top=evaluation.TOP),
        evaluate=evaluate,
        count=count,
        reference_loss=reference.entropy,
        best="mlm_loss",
        outputs=scoring.label_log_probs(config, None, backend) if pairs else None,
    )
