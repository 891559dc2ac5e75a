"""The fine-tuning tasks by name: each built-in one is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TypeVar

from albert_jax.config import TaskConfig
from albert_jax.errors import ConfigError, nearest
from albert_jax.tasks.task import AnyTask

T = TypeVar("T", bound=type[AnyTask])

_BUILT_IN = {
    "classification": "classification",
    "regression": "classification",
    "multiple-choice": "multiple_choice",
    "squad-v1": "question_answering",
    "squad-v2": "question_answering",
    "token-classification": "token_classification",
    "sentence-embedding": "sentence_embedding",
    "generation": "generation",
}
"""Name of each task -> module of this package that registers it."""

_tasks: dict[str, type[AnyTask]] = {}


def register(task: T) -> T:
    """Makes a task known under its name (a decorator)."""
    _tasks[task.name] = task
    return task


def names() -> list[str]:
    """Names of all tasks, the built-in ones first."""
    return [*_BUILT_IN, *(name for name in _tasks if name not in _BUILT_IN)]


def get(name: str) -> type[AnyTask]:
    """The task of a name. Raises ConfigError with the nearest name for an unknown one."""
    if name not in _tasks and name in _BUILT_IN:
        importlib.import_module(f"albert_jax.tasks.{_BUILT_IN[name]}")
    if name in _tasks:
        return _tasks[name]
    hint = nearest(name, names()) or f"; tasks: {', '.join(names())}"
    raise ConfigError(f"unknown task {name!r}{hint}")


def create(config: TaskConfig) -> AnyTask:
    """The task that a config names, under its settings.

    Raises ConfigError for an unknown name, and for the settings of another task.
    """
    task = get(config.name)
    if not isinstance(config, task.config_class):
        raise ConfigError(
            f"task {config.name} takes a {task.config_class.__name__}, not a "
            f"{type(config).__name__}: make one"
        )
    return task(config)
