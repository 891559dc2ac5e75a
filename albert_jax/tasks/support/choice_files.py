"""Files of multiple choice: RACE, SWAG, and the general form of JSON lines or a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax.data.sources import hub_datasets, tables
from albert_jax.data.sources.tables import Record, require, text_field
from albert_jax.errors import DataError

BLANK = re.compile(r"(?<!\w)_+(?!\w)")
"""A gap in a question, which the choice fills."""
RACE_LEVELS = ("middle", "high")
SUFFIXES = (".txt", ".json", ".jsonl", ".tsv", ".csv")
"""Files of a folder that are read."""
_RACE = re.compile(r'\s*\{.*"article"\s*:')


@dataclass(frozen=True)
class ChoiceExample:
    """A context and several endings, of which one is right."""

    where: str
    context: str
    endings: tuple[str, ...]
    label: int | None = None
    group: str = ""
    """Part of the data that is also scored on its own (RACE: "middle", "high")."""


def read_choices(
    path: str, columns: Sequence[str], max_choices: int, labelled: bool
) -> list[ChoiceExample]:
    """Questions of a RACE file or folder, of a hub dataset, or of a table.

    Raises DataError, if `labelled` also for a question without an answer.
    """
    records = _records(path, columns)
    examples = [x for record in records for x in from_record(record, max_choices, labelled)]
    for example in examples if labelled else ():
        if example.label is None:
            raise DataError(f"{example.where}: no answer; add the number or letter of the choice")
    return examples


def _records(path: str, columns: Sequence[str]) -> list[Record]:
    """Records of a RACE file (JSON lines, whatever its name), of a table, or of all in a folder."""
    if hub_datasets.is_hub_dataset(path):
        return hub_datasets.load_records(path)
    if Path(path).is_dir():
        paths = sorted(file for file in Path(path).rglob("*") if file.suffix in SUFFIXES)
        if not paths:
            raise DataError(f"{path}: no {', '.join(SUFFIXES)} files; give RACE's folder")
        return [record for file in paths for record in _records(str(file), columns)]
    if _RACE.match(tables.read_text(path)):
        return list(tables.json_lines(path))
    return tables.read_records(path, columns)


def _passage(record: Record, max_choices: int, labelled: bool) -> list[ChoiceExample]:
    """The examples of a passage of RACE, which may hold a single question, as hubs have it."""
    where = record.where
    passage = dict(record.fields)
    if "question" in passage and "questions" not in passage:
        passage["questions"] = [passage["question"]]
        passage["options"] = [passage.get("options", [])]
        passage["answers"] = [passage.get("answer")]
    article = require(passage, "article", where, str)
    questions, options = (require(passage, name, where, list) for name in ("questions", "options"))
    answers: list[Any] = [None] * len(questions)
    if labelled and passage.get("answers") is not None:
        answers = require(passage, "answers", where, list)
    if not len(questions) == len(options) == len(answers):
        raise DataError(f"{where}: questions, options and answers differ in number; fix them")
    group = _level(str(passage.get("id", passage.get("example_id", "")))) or _level(where)
    examples = []
    for i, text in enumerate(questions):
        where_question = f"{where} question {i + 1}"
        if not isinstance(text, str):
            raise DataError(f"{where_question}: is {text!r}, not a text; fix it")
        _check_choices(where_question, article, options[i], max_choices)
        # White space is collapsed before the blank is filled, as the original's cleaning runs on
        # question and option apart.
        stem = " ".join(text.split())
        endings = tuple(fill_blank(stem, " ".join(option.split())) for option in options[i])
        label = None if answers[i] is None else _label(where_question, answers[i], len(options[i]))
        examples.append(ChoiceExample(where_question, article, endings, label, group))
    return examples


def _level(name: str) -> str:
    """The level that a name tells; "" for none or both."""
    named = [level for level in RACE_LEVELS if level in name.lower()]
    return named[0] if len(named) == 1 else ""


def fill_blank(question: str, option: str) -> str:
    """The option in place of each "_" of the question, or after a question without one.

    This is RACE's own rule (race_utils.py).
    """
    return question.replace("_", option) if "_" in question else f"{question} {option}"


def from_record(record: Record, max_choices: int, labelled: bool) -> list[ChoiceExample]:
    """The examples of one record: of RACE, SWAG, or the general form.

    The general form has context, question (optional), choices (a list) and label (number from 0,
    or letter from "A"); SWAG has sent1, sent2, ending0, ..., label; RACE has article, questions,
    options, answers and id, which names the level (or else the path does). A gap in the question
    ("_" or more, standing alone) is filled by the choice, which otherwise follows it.
    """
    fields = record.fields
    if "article" in fields:
        return _passage(record, max_choices, labelled)
    if "ending0" in fields:
        context, stem = text_field(record, "sent1"), fields.get("sent2")
        names = [f"ending{i}" for i in range(len(fields)) if f"ending{i}" in fields]
        options: Any = [text_field(record, name) for name in names]
    else:
        context, stem = text_field(record, "context"), fields.get("question")
        options = fields.get("choices")
    if not isinstance(stem, str | None):
        raise DataError(f"{record.where}: the question is {str(stem)[:60]!r}, not a text; fix it")
    _check_choices(record.where, context, options, max_choices)
    answer = fields.get("label") if labelled else None
    label = None if answer in (None, "") else _label(record.where, answer, len(options))
    stem = " ".join((stem or "").split())
    return [ChoiceExample(record.where, context, tuple(_ending(stem, o) for o in options), label)]


def _ending(stem: str, option: str) -> str:
    filled, gaps = BLANK.subn(lambda _: option, stem)
    return filled if gaps else f"{stem} {option}".strip()


def _label(where: str, answer: object, count: int) -> int:
    """A label as number from 0 or letter from "A"; DataError outside the choices."""
    text, label = str(answer).strip(), -1
    if text.isdecimal() and len(text) < 10:
        label = int(text)
    elif len(text) == 1:
        label = ord(text) - ord("A")
    if not 0 <= label < count:
        raise DataError(f"{where}: answer {answer!r} is none of the {count} choices; fix the line")
    return label


def _check_choices(where: str, context: str, options: object, limit: int) -> None:
    if not isinstance(options, list) or len(options) < 2:
        raise DataError(f"{where}: fewer than two choices; give a list of them")
    if len(options) > limit:
        raise DataError(
            f"{where}: {len(options)} choices, more than the {limit} configured; raise "
            "task.max_choices"
        )
    if not context.strip():
        raise DataError(f"{where}: the context is empty; fill it or drop the line")
    for option in options:
        if not isinstance(option, str):
            raise DataError(f"{where}: a choice is {str(option)[:60]!r}, not a text; fix it")
        if not option.strip():
            raise DataError(f"{where}: a choice is empty; fill it or drop the line")
