"""Whether batches are made as fast as the steps of a config take them."""

from __future__ import annotations

import time

import numpy as np

from albert_jax.bench import step
from albert_jax.commands.doctor_checks import Finding
from albert_jax.config import Config
from albert_jax.data.batches import pipeline
from albert_jax.data.batches.rows import RowMaker
from albert_jax.data.corpus.corpus import Corpus


def look(config: Config, name: str) -> list[Finding]:
    """For each phase the time of a batch of `config.data.prepared` beside that of a step; `name`
    is the config's. Raises DataError for a folder that is not a prepared one."""
    return [_look(config, number, name) for number in range(len(config.phases))]


def _look(config: Config, number: int, name: str) -> Finding:
    phase, batch = config.phases[number], seconds_per_batch(config, number)
    adjusted = step.adjusted(config, phase=number, rows=None, length=None)
    taken = step.measure(adjusted, name, steps=5).step
    text = (
        f"phase {number}: a batch of {phase.batch_size} x {phase.sequence_length} takes "
        f"{batch * 1e3:.3g} ms to make, a step {taken * 1e3:.3g} ms"
    )
    if batch > taken:
        text += "; raise data.workers, or spread the run over more hosts"
    return Finding("input", batch <= taken, text)


def seconds_per_batch(config: Config, number: int) -> float:
    """Mean time to make a whole batch of phase `number` on this host, the first ones left out."""
    phase, workers = config.phases[number], config.data.workers
    corpora = [Corpus.open(folder, "train") for folder in config.data.prepared]
    maker = RowMaker(corpora, corpora[0].vocabulary(), phase, seed=config.seed, phase_index=number)
    # More than are made ahead, or nothing but a queue would be measured.
    count = 4 * pipeline.AHEAD * max(1, workers)
    made = pipeline.batches(maker, 0, count + 1, np.arange(phase.batch_size), workers)
    next(made)  # plans the epoch
    began = time.perf_counter()
    for _ in made:
        pass
    return (time.perf_counter() - began) / count
