"""The fine-tuning tasks by name: each built-in one is imported when it is asked for."""

from __future__ import annotations

import difflib
import importlib

from albert_jax.errors import ConfigError
from albert_jax.tasks.task import Task

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

_RENAMED = {
    "choice": "multiple-choice",
    "tagging": "token-classification",
    "embedding": "sentence-embedding",
}
"""Names of version 0.1, which are answered with the present one."""

_tasks: dict[str, Task] = {}


def register(task: Task) -> None:
    """Makes a task known under its name; a later one of the same name replaces it."""
    _tasks[task.name] = task


def names() -> list[str]:
    """Names of all tasks, the built-in ones first."""
    return [*_BUILT_IN, *(name for name in _tasks if name not in _BUILT_IN)]


def get(name: str) -> Task:
    """The task of a name. Raises ConfigError with the nearest name for an unknown one."""
    if name not in _tasks and name in _BUILT_IN:
        importlib.import_module(f"albert_jax.tasks.{_BUILT_IN[name]}")
    if name in _tasks:
        return _tasks[name]
    near = (
        [_RENAMED[name]] if name in _RENAMED else difflib.get_close_matches(name, names(), 1, 0.5)
    )
    hint = f"did you mean {near[0]}?" if near else f"tasks: {', '.join(names())}"
    raise ConfigError(f"unknown task {name!r}; {hint}")
