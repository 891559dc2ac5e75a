"""Small files of every task, and a classifier that was fine-tuned on one of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from albert_jax import api, cli
from albert_jax.data.vocabularies import training
from tests import tiny_models
from tests.finetuning.small_runs import command, write_files
from tests.test_examples import file


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


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A model of 64 positions with a vocabulary of English and Chinese, as a first run makes it."""
    texts = [file(folder, "train").read_text() for folder in ("reviews", "reviews-zh", "dialogues")]
    vocabulary = training.from_texts(texts, 1500)
    size = {"vocab_size": vocabulary.size, "max_position_embeddings": 64}
    model = dataclasses.replace(tiny_models.MODEL, **size)
    run_config = dataclasses.replace(tiny_models.RECIPE, model=model)
    path = tmp_path_factory.mktemp("weights") / "model"
    api.save(api.Model(run_config, api.init(model), vocabulary, "memory"), str(path))
    return path
