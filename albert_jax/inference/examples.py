"""Examples as they are typed or read for prediction, without their answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from albert_jax.config import TaskConfig
from albert_jax.errors import DataError
from albert_jax.tasks.examples import Choices, Question, Sentences, SourceTarget, Tagged
from albert_jax.tasks.families import Family
from albert_jax.tasks.sentence_tasks import label_columns
from albert_jax.tasks.tables import IGNORED
from albert_jax.tasks.task import PageForm

_PAIR = PageForm(fields=("text", "second text (optional)"))
_QUESTION = PageForm(fields=("question", "context"))
PAGE_FORMS = {
    "classification": _PAIR,
    "regression": _PAIR,
    "choice": PageForm(fields=("context", "choice"), repeat_last=True),
    "squad-v1": _QUESTION,
    "squad-v2": _QUESTION,
    "tagging": PageForm(fields=("words",)),
    "embedding": PageForm(fields=("first text", "second text")),
    "generation": PageForm(fields=("source or turn",), repeat_last=True, generates=True),
}
"""How the web page asks for an example of each task."""


def parse_line(task: TaskConfig, line: str, where: str) -> Any:
    """The example that a line holds, its parts between tabs; DataError for parts that lack."""
    parts = tuple(part.strip() for part in line.split("\t"))
    if not all(parts):
        raise DataError(f"{where}: the text is empty: give some between the tabs")
    least, most = {
        "choice": (3, 1 + task.choices),
        "squad-v1": (2, 2),
        "squad-v2": (2, 2),
        "embedding": (2, 2),
        "tagging": (1, 1),
        "generation": (1, 1000),
    }.get(task.name, (1, 2))
    if not least <= len(parts) <= most:
        raise DataError(
            f"{where}: {len(parts)} parts where {task.name} takes {least} to {most}: put a tab "
            "between them"
        )
    if task.name == "choice":
        return Choices(where, parts[0], parts[1:])
    if task.name.startswith("squad"):
        return Question(where, where, parts[0], parts[1])
    if task.name == "tagging":
        return Tagged(where, tuple(parts[0].split()))
    if task.name == "generation":
        return SourceTarget(where, parts)
    return Sentences(where, parts)


def read_for_prediction(
    family: Family, place: str, task: TaskConfig, columns: tuple[str, ...] | None
) -> list[Any]:
    """Examples of a table with the `columns`, or with those of the training, with or without the
    label's; the first complaint is told."""
    label = _label_column(task)
    task = dataclasses.replace(task, label_column="")
    if columns is not None:
        known = (label, *label_columns(task))
        texts = tuple(IGNORED if name in known else name for name in columns)
        task = dataclasses.replace(task, columns=texts, text_columns=())
        return family.read(place, task, False)
    alone = tuple(name for name in task.columns if name != label)
    try:
        return family.read(place, dataclasses.replace(task, columns=alone), False)
    except DataError as error:
        if not task.columns:
            raise
        beside = tuple(IGNORED if name == label else name for name in task.columns)
        try:
            return family.read(place, dataclasses.replace(task, columns=beside), False)
        except DataError:
            raise error from None


def _label_column(task: TaskConfig) -> str:
    """Name of the label's column of the training table; empty: that table's header names it."""
    label = task.label_column or next((n for n in label_columns(task) if n in task.columns), "")
    if not label and task.name in ("classification", "regression") and len(task.columns) > 1:
        label = task.columns[-1]
    return label
