"""A server over models in memory: a pretrained one and fine-tuned ones, with random weights."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import pytest
import tiny_models

from albert_jax import api
from albert_jax.config import PhaseConfig, TaskConfig
from albert_jax.serve.answers import Answers
from albert_jax.serve.server import Server
from albert_jax.tasks import old_registry as registry

TASKS = {
    "feelings": TaskConfig(name="classification", labels=("no", "yes"), metrics=("accuracy",)),
    "questions": TaskConfig(name="squad-v2", metrics=("f1",), query_length=8, stride=8),
    "writer": TaskConfig(name="generation", metrics=("bleu",), canvas=8, rounds=4),
    "choices": TaskConfig(name="choice", metrics=("accuracy",), choices=3, qa_length=16),
    "tags": TaskConfig(name="tagging", labels=("B-X", "O"), metrics=("f1",)),
    "pairs": TaskConfig(name="embedding", metrics=("retrieval",)),
}


def finetuned(task: TaskConfig) -> api.Model:
    """The tiny model with a new head of the task."""
    model = tiny_models.model()
    kind = registry.task(task.name)
    head = kind.new_head(model.config.hidden_size, task.labels, 0, 0.5)
    kept = {n: model.params[n] for n in ("embeddings", "encoder", *kind.units(task))}
    phases = (PhaseConfig(steps=1, sequence_length=32, batch_size=4),)
    run_config = dataclasses.replace(model.run_config, task=task, phases=phases)
    return api.Model(
        run_config, kept | ({"head": head} if head else {}), model.vocabulary, "memory"
    )


@pytest.fixture(scope="session")
def models() -> dict[str, api.Model]:
    """By the names that the page shows."""
    return {"pretrained": tiny_models.model()} | {n: finetuned(task) for n, task in TASKS.items()}


@pytest.fixture(scope="session")
def server(models: dict[str, api.Model]) -> Iterator[Server]:
    """Serving on a free port."""
    with Server(Answers(models), 0) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join(10)
