"""The compiled steps of a run: one program for each phase and depth."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import jax
import numpy as np

from albert_jax.config import Config
from albert_jax.optim.schedule import learning_rate
from albert_jax.parallel.mesh import global_batch
from albert_jax.train.state import TrainState
from albert_jax.train.step import make_train_step
from albert_jax.train.task import Batch, TrainingTask


class CompiledSteps:
    """The steps of a task, compiled once for each phase and depth."""

    def __init__(self, config: Config, task: TrainingTask, mesh: jax.sharding.Mesh) -> None:
        self._config, self._mesh, params = config, mesh, task.abstract_params
        self._made = cache(
            lambda number, num_layers: make_train_step(
                config, config.phases[number], mesh, task.loss(number), params, num_layers
            )
        )

    def __call__(
        self, state: TrainState, batch: Batch, step: int
    ) -> tuple[TrainState, dict[str, Any]]:
        """The state after a step (counted from 0) and its metrics; `state` is donated.

        `batch` holds the rows of this process.
        """
        config = self._config
        number, _ = config.phase_at(step)
        scalars = {
            "learning_rate": np.float32(learning_rate(config, step)),
            "seed": np.int32(config.seed),
        }
        rows = global_batch(batch, self._mesh, config.phases[number].batch_size)
        return self._made(number, depth_at(config, step))(state, rows, scalars)


def depth_at(config: Config, step: int) -> int | None:
    """The depth of a step, drawn from the phase's depths by (seed, step); None: the model's own."""
    phase = config.phases[config.phase_at(step)[0]]
    if not phase.depths:
        return None
    digest = hashlib.sha256(f"depth:{config.seed}:{step}".encode()).digest()
    return phase.depths[int.from_bytes(digest[:8], "little") % len(phase.depths)]
