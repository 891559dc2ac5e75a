"""Small files of every task, and the commands that fine-tune the micro model on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax import cli
from tests import tiny_models

QUICK = ["--phases.0.sequence-length", "32", "--phases.0.batch-size", "4", "--max-steps", "3",
         "--run.logging-steps", "1", "--optimizer.learning-rate", "3e-3"]  # fmt: skip
TEXTS = ("the file is found", "the value is not found", "a folder holds the name",
         "it returns nothing", "every thread waits", "the name is read from the file")  # fmt: skip
SQUAD = ["--task.max-query-length", "8", "--task.doc-stride", "4"]
TASKS = {
    "classification": ("classes.tsv", [], "the file is not found"),
    "regression": ("scores.csv", ["--columns", "sentence1,sentence2,score"], "the file\tthe name"),
    "multiple-choice": (
        "choice.jsonl",
        ["--task.max-choices", "2", "--task.max-qa-length", "16", "--task.pooling", "cls"],
        "the file\tis found\tis not",
    ),
    "squad-v1": ("squad-v1.json", SQUAD, "what is found\tthe file is found"),
    "squad-v2": ("squad-v2.json", SQUAD, "what is found\tthe file is found"),
    "token-classification": ("tags.conll", [], "the file is"),
    "sentence-embedding": ("embedding.tsv", ["--task.pairs-per-row", "3"], "the file\tthe name"),
    "generation": (
        "generation.jsonl",
        ["--task.max-target-length", "12", "--task.denoising-steps", "3"],
        "the file is",
    ),
}
"""Task -> its file with 12 examples, its options, and an example as a typed line."""


def call(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `albert-jax ARGUMENTS`, run in this process."""
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def command(data: Path, name: str, out: Path, *more: object) -> list[str]:
    """The arguments that fine-tune a task for three steps; `more` come last and win."""
    file, options, _ = TASKS[name]
    path = str(data / file)
    return ["finetune", "--task", name, "--train", path, "--dev", path, "--out", str(out),
            *options, *QUICK, *map(str, more)]  # fmt: skip


def write_files(folder: Path) -> None:
    """Writes the files of all tasks, minimal pairs, and a directory of random weights."""

    def write(name: str, lines: Sequence[str]) -> None:
        (folder / name).write_text("\n".join(lines) + "\n")

    def write_json(name: str, records: Sequence[dict[str, Any]]) -> None:
        write(name, [json.dumps(record) for record in records])

    pairs = [(TEXTS[i % 6], TEXTS[(i + 1 + i % 2) % 6], i) for i in range(12)]
    labels = ["not" if "not" in a else "yes" for a, _, _ in pairs]
    rows = [f"{a}\t{label}" for (a, _, _), label in zip(pairs, labels, strict=True)]
    write("sentences.txt", TEXTS)
    write("classes.tsv", ["sentence\tlabel", *rows])
    write("scores.csv", [f"{a},{b},{i / 4}" for a, b, i in pairs])
    write("embedding.tsv", ["sentence1\tsentence2", *(f"{a}\t{b}" for a, b, _ in pairs)])
    write_json(
        "choice.jsonl",
        [
            {"context": a, "question": "what _", "choices": [b, "nothing"], "label": i % 2}
            for a, b, i in pairs
        ],
    )
    sentences = [[f"{w} {'B-X' if w == 'file' else 'O'}" for w in a.split()] for a, _, _ in pairs]
    write("tags.conll", [line for sentence in sentences for line in [*sentence, ""]])
    targets = ["not found" if "not" in b else "found" for _, b, _ in pairs]
    write_json(
        "generation.jsonl",
        [{"source": a, "target": target} for (a, _, _), target in zip(pairs, targets, strict=True)],
    )
    write_json(
        "pairs.jsonl",
        [{"sentence_good": a, "sentence_bad": b, "UID": f"set{i % 2}"} for a, b, i in pairs],
    )
    write_json("squad-v1.json", [_squad([a for a, _, _ in pairs], impossible=False)])
    write_json("squad-v2.json", [_squad([a for a, _, _ in pairs], impossible=True)])
    tiny_models.directory(folder)


def _squad(contexts: Sequence[str], *, impossible: bool) -> dict[str, Any]:
    """A SQuAD file; the answer is the second word, or every other question has none."""
    paragraphs = []
    for i, context in enumerate(contexts):
        word = context.split()[1]
        question: dict[str, Any] = {"id": f"q{i}", "question": "what is found"}
        if impossible and i % 2:
            question |= {"answers": [], "is_impossible": True}
        else:
            question["answers"] = [{"text": word, "answer_start": context.index(word)}]
        paragraphs.append({"context": context, "qas": [question]})
    return {"data": [{"title": "t", "paragraphs": paragraphs}]}
