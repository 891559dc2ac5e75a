"""Small files of every task, and a classifier that was fine-tuned on one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import command, write_files

from albert_jax import cli


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of every task, and random weights to start from (model)."""
    folder = tmp_path_factory.mktemp("data")
    write_files(folder)
    return folder


@pytest.fixture(scope="session")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier after three steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(command(data, "classification", run, "--init", data / "model")) == 0
    return run
