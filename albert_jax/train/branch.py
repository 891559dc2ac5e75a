"""Where a run can start, if its folder holds nothing yet: as the child of another run."""

from __future__ import annotations

from collections.abc import Callable

from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.train.state import TrainState


def branch(source: str) -> Callable[[TrainState], TrainState]:
    """What the loop calls for the first state of a child run: RUN@STEP, or RUN for its newest.

    The whole state is taken over, moments and step too, so the child's config describes the run
    from its very first step, the parent's part included, and the phases that follow it differ.
    The parent's folder is only read.

    Raises ConfigError for a text of another form; CheckpointError when that step is not there,
    not whole, or of another shape.
    """
    folder, mark, number = source.rpartition("@")
    if not mark:
        folder, number = source, ""
    if mark and not number.isdecimal():
        raise ConfigError(f"--from {source}: write RUN@STEP with a number of steps")
    step = int(number) if mark else None

    def start(shapes: TrainState) -> TrainState:
        restored = Checkpoints(folder, keep=1, best=None, read_only=True).restore(shapes, step)
        if restored is None:
            raise CheckpointError(f"{folder} has no checkpoint: name a run that has one")
        return restored.state

    return start
