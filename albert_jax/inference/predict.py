"""`albert-jax predict`: a fine-tuned run applied to a file, or to lines of text."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

from albert_jax import files
from albert_jax.config import TaskConfig
from albert_jax.errors import DataError
from albert_jax.evaluation import finetuned
from albert_jax.inference import depth
from albert_jax.model_io.model import Weights, load
from albert_jax.tasks.examples import Choices, Question, Sentences, SourceTarget, Tagged
from albert_jax.tasks.families import Family
from albert_jax.tasks.sentence_tasks import label_columns
from albert_jax.tasks.tables import IGNORED

CHUNK = 1024
"""Examples whose outputs are held at a time, at most; the features of all are held."""


def predict(
    run_dir: str,
    *,
    place: str | None = None,
    lines: str | None = None,
    columns: tuple[str, ...] | None = None,
    rounds: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    show: Callable[[str], None] | None = None,
    num_layers: int | None = None,
    exit_confidence: float | None = None,
    step: int | Literal["best", "newest"] = "newest",
    weights: Weights = "trained",
) -> Iterator[dict[str, Any]]:
    """One prediction (plain JSON) per example of the file at `place`, or per line of `lines`.

    The other options are those of the verb (commands/finetune.py). Everything that can be wrong
    with model and examples is raised before the first prediction: CheckpointError, ConfigError,
    DataError. With `exit_confidence` a line on stderr after the last one tells what was saved.
    """
    model = load(run_dir, step=step, weights=weights)
    task, kind = finetuned.finetuned(model)
    if num_layers is not None:
        depth.check(model.config, num_layers)
    if rounds is not None:
        task = dataclasses.replace(task, rounds=rounds)
        task.validate()
        model = dataclasses.replace(
            model, run_config=dataclasses.replace(model.run_config, task=task)
        )
    if lines is not None:
        examples = [
            typed(task, line, f"line {number}")
            for number, line in enumerate(lines.rstrip("\n").split("\n"), start=1)
        ]
    else:
        assert place is not None
        examples = _read(kind.family, place, task, columns)
    options: dict[str, Any] = {"temperature": temperature, "seed": seed, "show": show}
    if exit_confidence is not None:
        from albert_jax.inference.early_exit import EarlyExit

        options["early"] = EarlyExit(model, exit_confidence, num_layers)
    count, parted = len(examples), max(1, -(-len(examples) // CHUNK))
    bounds = [count * i // parted for i in range(parted + 1)]
    parts = [examples[begin:end] for begin, end in pairwise(bounds)]
    features = [finetuned.featurise(model, part) for part in parts]
    return _predictions(model, parts, features, num_layers=num_layers, **options)


def write(found: Iterable[dict[str, Any]], out: str | None) -> None:
    """Writes one JSON object per line to a file (whole or not at all), or to stdout."""
    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in found)
    if out is not None:
        files.write(out, "".join(lines).encode())
        return
    for line in lines:
        sys.stdout.write(line)


def typed(task: TaskConfig, line: str, where: str) -> Any:
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


def _predictions(model: Any, parts: list[Any], features: list[Any], **options: Any) -> Any:
    for examples, made in zip(parts, features, strict=True):
        yield from finetuned.answers(model, examples, features=made, **options)
    if "early" in options:
        print(options["early"].summary(), file=sys.stderr)


def _read(
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
