"""A server over models in memory: a pretrained one and fine-tuned ones, with random weights."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import pytest

from albert_jax import api
from albert_jax.config import PhaseConfig, TaskConfig
from albert_jax.serve.answers import Answers
from albert_jax.serve.server import Server
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig, RegressionConfig
from albert_jax.tasks.generation import GenerationConfig
from albert_jax.tasks.multiple_choice import MultipleChoiceConfig
from albert_jax.tasks.question_answering import SquadV2Config
from albert_jax.tasks.sentence_embedding import SentenceEmbeddingConfig
from albert_jax.tasks.support.encoder import init_head, task_params
from albert_jax.tasks.token_classification import TokenClassificationConfig
from tests import tiny_models

TASKS = {
    "feelings": ClassificationConfig(labels=("no", "yes"), metrics=("accuracy",)),
    "questions": SquadV2Config(metrics=("f1",), max_query_length=8, doc_stride=8),
    "writer": GenerationConfig(metrics=("bleu",), max_target_length=8, denoising_steps=4),
    "chat": GenerationConfig(
        metrics=("bleu",), max_target_length=8, denoising_steps=4, max_turns=3
    ),
    "grades": RegressionConfig(metrics=("pearson",)),
    "choices": MultipleChoiceConfig(metrics=("accuracy",), max_choices=3, max_qa_length=16),
    "tags": TokenClassificationConfig(labels=("B-X", "O"), metrics=("f1",)),
    "pairs": SentenceEmbeddingConfig(metrics=("retrieval",)),
}


def finetuned(config: TaskConfig) -> api.Model:
    """The tiny model with a new head of the task."""
    model = tiny_models.model()
    task = registry.create(config)
    head = init_head(task.head_shapes(model.config.hidden_size), 0, 0.5)
    phases = (PhaseConfig(steps=1, sequence_length=32, batch_size=4),)
    run_config = dataclasses.replace(model.run_config, task=config, phases=phases)
    params = task_params(task, model.params, head)
    return api.Model(run_config, params, model.vocabulary, "memory")


@pytest.fixture(scope="session")
def models() -> dict[str, api.Model]:
    """By the names that the page shows."""
    return {"pretrained": tiny_models.model()} | {
        n: finetuned(config) for n, config in TASKS.items()
    }


@pytest.fixture(scope="session")
def server(models: dict[str, api.Model]) -> Iterator[Server]:
    """Serving on a free port."""
    with Server(Answers(models), 0) as started:
        thread = threading.Thread(target=started.serve_forever, daemon=True)
        thread.start()
        yield started
        started.shutdown()
        thread.join(10)
