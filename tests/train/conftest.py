"""The undisturbed run with which tests of ends compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from albert_jax.config import Config
from albert_jax.train import pretraining


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory) -> Path:
    """A run with the module's own `config` that nothing has ended."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretraining.run(config, str(run))
    return run
