"""A run from its folder's lock to its curves, whatever its task."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax

from albert_jax import configfile
from albert_jax.checkpoint.lock import RunLock
from albert_jax.config import Config
from albert_jax.observe import curves
from albert_jax.parallel import agreement as cluster
from albert_jax.train import loop
from albert_jax.train.run_folder import open_run, refuse_strangers
from albert_jax.train.state import TrainState
from albert_jax.train.task import Task

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary


def whole_run(
    config: Config,
    task: Task,
    out: str,
    mesh: jax.sharding.Mesh,
    *,
    facts: Mapping[str, Any],
    vocabulary: Vocabulary,
    allow_change: tuple[str, ...] = (),
    start: Callable[[TrainState], TrainState] | None = None,
) -> None:
    """Trains `task` in the run folder `out`, or continues the run there.

    `facts` (plain JSON) are what else decides the numbers, see run_folder.py; `start` as in
    loop.py. Raises AlbertError of every kind.
    """
    index, processes = jax.process_index(), jax.process_count()
    with contextlib.ExitStack() as held:
        locks: list[RunLock] = []

        def open_folder() -> list[str]:
            locks.append(held.enter_context(RunLock(out)))
            refuse_strangers(out)
            return open_run(out, config, facts, vocabulary.files(), allow_change=allow_change)

        told = cluster.on_first("run folder", open_folder, index, processes)
        for line in told if index == 0 else []:
            print(f"{out}: {line}", file=sys.stderr)
        loop.train(
            config,
            task,
            out,
            mesh,
            record={**facts, "config": configfile.dumps(config)},
            lock=locks[0] if locks else None,
            start=start,
        )
        if index == 0:
            curves.draw(out)
