"""Batches ahead of the step, through Grain.

Grain maps over batch numbers: its element is a whole batch, made from one integer, so its state
is that integer, and any number of hosts, threads or worker processes yields the same batches.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.rows import Batch, RowMaker, empty_batch
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError

AHEAD = 4
"""Batches made before they are asked for (per worker process, if there are any)."""


def batches(
    maker: RowMaker, first_step: int, stop_step: int, rows: np.ndarray, workers: int = 0
) -> Iterator[Batch]:
    """Batches ``first_step`` to ``stop_step`` - 1 of a phase, rows ``rows`` of each.

    ``workers`` processes make them; with 0 a thread of this process does. Raises DataError for a
    damaged record.
    """
    import grain.python as grain

    numbers = grain.MapDataset.range(first_step, stop_step)
    made = numbers.map(_Made(maker, np.asarray(rows)))
    if not workers:
        # One thread: the time goes to numpy, and a second thread would fight for the same lock.
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
        yield from made.to_iter_dataset(ahead)
        return
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers copy absl's flags, which nobody parsed.
        flags.FLAGS.mark_as_parsed()
    maker.rows_per_epoch()  # Counted once here instead of in every worker.
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    serial = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    for batch in made.to_iter_dataset(serial).mp_prefetch(options, worker_init_fn=_deaf):
        # Copied out of Grain's shared memory, which is then free (and complains at exit if not).
        yield {name: np.array(array) for name, array in batch.items()}


def held_out(
    corpus: Corpus,
    phase: PhaseConfig,
    vocabulary: Vocabulary,
    *,
    rows: int,
    batch_rows: int,
    seed: int,
) -> list[Batch]:
    """At most ``rows`` rows of a held-out corpus, in batches of ``batch_rows`` under fixed masks.

    They depend on the corpus, the phase's plan and objective, and the seed, not on
    ``batch_rows``; the last batch is filled up with rows of weight 0. Raises DataError if the
    corpus has no row.
    """
    fixed = dataclasses.replace(phase, mixture=(), batch_size=max(rows, 1))
    maker = RowMaker([corpus], vocabulary, fixed, seed=seed, phase_index=-1)
    total = min(rows, maker.rows_per_epoch())
    if total < 1:
        raise DataError(f"{corpus.directory} holds no held-out row: prepare more text")
    found = []
    for start in range(0, total, batch_rows):
        real = maker.batch(0, np.arange(start, min(start + batch_rows, total)))
        batch = empty_batch(phase, batch_rows)
        for name, array in real.items():
            batch[name][: len(array)] = array
        found.append(batch)
    return found


def _deaf(number: int, count: int) -> None:
    """What a worker does first: signals that are sent to all processes of a run are for the one
    that saves it; the workers end with that one."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)


class _Made:
    """What Grain maps: batch number to batch (a class, so that workers can receive it)."""

    def __init__(self, maker: RowMaker, rows: np.ndarray) -> None:
        self._maker, self._rows = maker, rows

    def __call__(self, step: int) -> Batch:
        return self._maker.batch(int(step), self._rows)
