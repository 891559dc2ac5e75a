"""Batches that are built ahead of the training step, through Grain.

Grain maps over batch numbers: its element is a whole batch, built from one integer. So its state
is that integer, and any number of hosts, threads or worker processes yields the same batches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.batch import Batch, empty_batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import PeerError

AHEAD = 4
"""Batches that are built ahead by each worker process."""
_QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
"""Keeps Python's tracker of shared memory from a warning about each segment that it removes."""


def batches_ahead(num_rows: int) -> int:
    """Number of batches of some rows that the thread builds ahead if there are no workers."""
    # Now and then it plans a whole group of rows (order.py), which takes about a second. Batches of
    # 4,096 rows together hide this from the training step.
    return min(max(AHEAD, 4096 // max(num_rows, 1)), 32)


def batches(
    builder: BatchBuilder, first_step: int, stop_step: int, rows: np.ndarray, workers: int = 0
) -> Iterator[Batch]:
    """Yields the rows ``rows`` of the batches first_step to stop_step - 1 of a phase.

    They are built by ``workers`` processes, or by a thread of this process if that is 0.

    Raises:
      DataError: A record is damaged.
      PeerError: A worker process was killed.
    """
    import grain

    numbers = grain.MapDataset.range(first_step, stop_step)
    dataset = numbers.map(functools.partial(builder.batch, rows=np.asarray(rows)))
    if not workers:
        # One thread: the time goes to numpy, and a second thread would compete for the same lock.
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=batches_ahead(len(rows)))
        with contextlib.closing(iter(dataset.to_iter_dataset(ahead))) as iterator:
            yield from iterator
        return
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain's workers copy absl's flags, which nobody parsed.
        flags.FLAGS.mark_as_parsed()
    builder.rows_per_epoch()  # Rows are counted here once instead of in every worker.
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    serial = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    if _QUIET not in sys.warnoptions:
        sys.warnoptions.append(_QUIET)
    processes = dataset.to_iter_dataset(serial).mp_prefetch(options, worker_init_fn=_begin_worker)
    with contextlib.closing(iter(processes)) as iterator, _gone_workers():
        for batch in iterator:
            # A copy, because Grain's shared memory must be released.
            yield {name: np.array(array) for name, array in batch.items()}


@contextlib.contextmanager
def _gone_workers() -> Iterator[None]:
    """Turns Grain's error about a killed worker into ours."""
    try:
        yield
    except RuntimeError as error:
        if code := re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error)):
            raise PeerError(
                f"a data worker is gone (exit code {code[1]}; -9: killed, perhaps because memory "
                "ran out): lower data.workers or free memory, then start the same command again"
            ) from error
        raise


def held_out(
    corpus: Corpus,
    phase: PhaseConfig,
    vocabulary: Vocabulary,
    *,
    max_rows: int,
    batch_size: int,
    seed: int,
) -> list[Batch]:
    """At most ``max_rows`` rows of a held-out corpus under fixed masks, in batches.

    The rows do not depend on ``batch_size``. The last batch is filled up with rows of weight 0.
    Raises DataError if the corpus has no rows.
    """
    fixed = dataclasses.replace(phase, mixture=(), batch_size=max(max_rows, 1))
    builder = BatchBuilder([corpus], vocabulary, fixed, seed=seed, phase_index=-1)
    total = min(max_rows, builder.rows_per_epoch())
    filled = []
    for start in range(0, total, batch_size):
        rows = builder.batch(0, np.arange(start, min(start + batch_size, total)))
        batch = empty_batch(phase, batch_size)
        for name, array in rows.items():
            batch[name][: len(array)] = array
        filled.append(batch)
    return filled


def _begin_worker(number: int, count: int) -> None:
    """Worker initializer: signals are the trainer's, and the worker ends when the trainer does.

    The operating system tells of the trainer's death by closing a pipe, after kill -9 too. Then
    Python's resource tracker, which waits for the last worker, removes the shared memory.
    """
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()

    def watch() -> None:
        if trainer is not None:
            trainer.join()
            os._exit(PeerError.exit_code)

    threading.Thread(target=watch, name="watch-trainer", daemon=True).start()
