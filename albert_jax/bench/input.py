"""Comparison of the time to make a batch with the time of a step."""

from __future__ import annotations

import time

import numpy as np

from albert_jax.bench import step
from albert_jax.config import Config
from albert_jax.data.batches import pipeline
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus


def compare(config: Config) -> list[tuple[bool, str]]:
    """Returns for each phase whether input keeps up with the steps, and a sentence with both times.

    Raises DataError where config.data.prepared cannot be read.
    """
    results = []
    batches = [seconds_per_batch(config, number) for number in range(len(config.phases))]
    times = zip(config.phases, batches, step.seconds_per_step(config), strict=True)
    for number, (phase, batch_seconds, step_seconds) in enumerate(times):
        text = (
            f"phase {number}: a batch of {phase.batch_size} x {phase.sequence_length} takes "
            f"{batch_seconds * 1e3:.3g} ms to make, a step {step_seconds * 1e3:.3g} ms"
        )
        if batch_seconds > step_seconds:
            text += "; raise data.workers, or spread the run over more hosts"
        results.append((batch_seconds <= step_seconds, text))
    return results


def seconds_per_batch(config: Config, number: int) -> float:
    """Mean time to make a batch of phase `number` on this host, without the first ones."""
    phase, workers = config.phases[number], config.data.workers
    corpora = [Corpus.open(folder, "train") for folder in config.data.prepared]
    vocabulary = corpora[0].vocabulary()
    builder = BatchBuilder(corpora, vocabulary, phase, seed=config.seed, phase_index=number)
    # Time more batches than are prefetched, or nothing but the queue would be measured.
    ahead = workers * pipeline.AHEAD or pipeline.batches_ahead(phase.batch_size)
    count = 4 * ahead
    batches = pipeline.batches(builder, 0, count + 1, np.arange(phase.batch_size), workers)
    next(batches)  # The first batch waits for the plan of the epoch.
    start = time.perf_counter()
    for _ in batches:
        pass
    return (time.perf_counter() - start) / count
