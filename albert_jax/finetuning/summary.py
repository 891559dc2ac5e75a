"""Lines that tell a person what a run learns from, and when it learned nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.config import Config
from albert_jax.data.batches.show import segment_lines
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.finetuning.batches import TrainingBatches
from albert_jax.tasks.support.rows import Batch
from albert_jax.tasks.task import AnyTask

LABELS_SHOWN = 8
"""Labels that are named; of more only the number is told."""


def say(out: str, *lines: str) -> None:
    """Prints lines about the run folder `out`, on its first process; empty ones are left out."""
    from albert_jax.observe.console import Console
    from albert_jax.parallel.jax_internals import process_index

    console = Console(quiet=process_index() != 0)
    for line in filter(None, lines):
        console.say(f"{out}: {line}")


def of_examples(
    config: Config,
    task: AnyTask,
    examples: tuple[int, int],
    features: tuple[Sequence[Any], Sequence[Any]],
) -> str:
    """The data of a run in a line: `examples` and `features` are those of train and dev."""
    parts = [f"{task.name}: {examples[0]} training and {examples[1]} dev examples"]
    labels = task.output_names if hasattr(task.config, "labels") else ()
    if labels:
        names = f" ({', '.join(labels)})" if len(labels) <= LABELS_SHOWN else ""
        parts.append(f"{len(labels)} labels{names}")
    parts.append(f"rows of {config.phases[-1].sequence_length} tokens")
    train, dev = features
    train = train[: examples[0]] if task.augment else train  # Without the changed copies.
    truncated = [sum(map(task.is_truncated, part)) for part in (train, dev)]
    lost = f"{truncated[0]} training and {truncated[1]} dev examples are longer and are truncated"
    clauses = [", ".join(parts), lost if any(truncated) else "all examples fit"]
    if config.task is not None and config.task.train == config.task.dev:
        clauses.append("the dev examples are the training examples: scores say nothing of others")
    return "; ".join(clauses)


def of_row(batch: Batch, vocabulary: Vocabulary, row: int) -> list[str]:
    """The size of a row of a batch, and the tokens of each of its sequences."""
    names = ("input_ids", "segment_ids", "token_type_ids")
    # A row of several sequences has an axis for them.
    ids, segments, types = (np.atleast_2d(batch[name][row]) for name in names)
    lines = [f"{np.count_nonzero(segments)} of {segments.size} tokens"]
    for sequence in range(len(ids)):
        tokens = [vocabulary.id_to_token(id) for id in ids[sequence].tolist()]
        lines += segment_lines(tokens, segments[sequence] > 0, types[sequence])
    return lines


def of_origin(
    task: AnyTask,
    batches: TrainingBatches,
    examples: Sequence[Any],
    phase: int,
    step: int,
    row: int,
) -> list[str]:
    """The examples that stand in a row of the batch of a step of the run, with their answers."""
    per_row, features = task.features_per_row, batches.features.of_phase(phase)
    numbers = batches.numbers(phase, step)[row * per_row : (row + 1) * per_row].tolist()
    origin = []
    for number in numbers:
        example_number = task.example_number(features[number])
        if example_number is None and len(features) != len(examples):
            # Long examples have several features that do not tell whose they are.
            origin.append(f"part {number} of the {len(features)} parts of all examples")
            continue
        example = examples[number if example_number is None else example_number]
        answer = task.truth(example)
        origin.append(f"{example.where}{f', {answer}' if answer is not None else ''}")
    return origin


def of_single_answer(config: Config, answers: Sequence[str], init: str | None) -> str:
    """Returns advice if the last evaluation of a run had one answer for all examples, else "".

    `answers` holds the single answer of each evaluation, "" where answers differ.
    """
    if not answers or not answers[-1]:
        return ""
    task, rate = config.task, config.optimizer.learning_rate
    assert task is not None
    advice = []
    if getattr(task, "pooling", "") == "cls":
        advice.append("--task.pooling mean")
    advice.append("more epochs (--task.num-train-epochs, without --max-steps)")
    advice.append(f"--optimizer.learning-rate {rate / 2:g} and another --seed")
    if init is None:
        advice.append("pretrained weights (--init)")
    return (
        f"predicts {answers[-1]} for every dev example, so it has learned nothing from the texts: "
        f"try {', '.join(advice)}"
    )
