"""A small state, and a run folder with three complete checkpoints of it to copy and damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.checkpoint.manager import Checkpoints


class State(NamedTuple):
    """Like a train state: named fields, dicts and tuples inside."""

    step: Any
    params: dict[str, Any]
    moments: tuple[Any, ...]


def _make_state(step: int) -> State:
    """A state whose numbers depend on the step."""
    random = np.random.default_rng(step)
    kernel = jnp.asarray(random.normal(size=(64, 96)), jnp.float32)
    return State(
        step=jnp.int32(step),
        params={"dense": {"kernel": kernel, "bias": jnp.full(96, step, jnp.float32)}},
        moments=({"kernel": kernel * 0.5}, {}),
    )


@pytest.fixture(scope="session")
def make_state():
    """Function from a step to a state."""
    return _make_state


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """A run folder with steps 10, 20 and 30."""
    run = tmp_path_factory.mktemp("template") / "run"
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    for step in (10, 20, 30):
        checkpoints.save(step, _make_state(step), {"note": f"step {step}"}, {"loss": 1.0 / step})
    checkpoints.close()
    return run


@pytest.fixture
def run(template, tmp_path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"
