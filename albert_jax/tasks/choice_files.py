"""Files of multiple choice: RACE, SWAG, and the general form of JSON lines or a table."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax.data.sources import hub_datasets
from albert_jax.data.sources.tables import Record, parse_json, read_text, text_field
from albert_jax.errors import DataError
from albert_jax.tasks.json_fields import require

BLANK = re.compile(r"(?<!\w)_+(?!\w)")
"""A gap in a question, which the choice fills."""
RACE_LEVELS = ("middle", "high")


@dataclass(frozen=True)
class ChoiceExample:
    """A context and several endings, of which one is right."""

    where: str
    context: str
    endings: tuple[str, ...]
    label: int | None = None
    group: str = ""
    """Part of the data that is also scored on its own (RACE: "middle", "high")."""


def read_race(path: str | Path, max_choices: int, labelled: bool) -> list[ChoiceExample]:
    """Questions of a RACE file (one JSON object, or one per line) or of a folder of such files.

    An object holds article, questions, options, answers ("A" to "D", read only if `labelled`)
    and id; the level (middle, high) is the one that the id names, or else the path.
    """
    root = Path(path)
    if root.is_dir():
        suffixes = (".txt", ".json", ".jsonl")
        paths = sorted(file for file in root.rglob("*") if file.suffix in suffixes)
        if not paths:
            raise DataError(f"{path}: no .txt, .json or .jsonl files; give RACE's folder")
        return [x for file in paths for x in read_race(file, max_choices, labelled)]
    text = read_text(path)
    try:
        json.loads(text)
        lines = [text]
    except (ValueError, RecursionError):
        lines = text.split("\n")
    passages = [
        (f"{path}:{number}", parse_json(line, path, number, "one passage per line"))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not passages:
        raise DataError(f"{path}: no passages; give a file with at least one")
    return [
        x for where, passage in passages for x in _passage(where, passage, max_choices, labelled)
    ]


def is_race(path: str | Path) -> bool:
    """Whether a path is a folder, or a file whose first object is a passage of RACE."""
    if Path(path).is_dir():
        return True
    try:
        first, _ = json.JSONDecoder().raw_decode(read_text(path).lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "article" in first


def _passage(
    where: str, passage: dict[str, Any], max_choices: int, labelled: bool
) -> list[ChoiceExample]:
    """The examples of one passage: question and option joined, "_" replaced by the option."""
    article = require(passage, "article", where, str)
    questions, options = (require(passage, name, where, list) for name in ("questions", "options"))
    answers = None
    if labelled and passage.get("answers") is not None:
        answers = require(passage, "answers", where, list)
    if len(questions) != len(options) or (answers is not None and len(questions) != len(answers)):
        raise DataError(f"{where}: questions, options and answers differ in number; fix them")
    group = _level(str(passage.get("id", ""))) or _level(where)
    examples = []
    for i, text in enumerate(questions):
        place = f"{where} question {i + 1}"
        if not isinstance(text, str):
            raise DataError(f"{place}: is {text!r}, not a text; fix it")
        _check_choices(place, article, options[i], max_choices)
        label = None if answers is None else _label(place, answers[i], len(options[i]))
        # White space is collapsed before the blank is filled, as the original's cleaning runs on
        # question and option apart.
        stem = " ".join(text.split())
        endings = tuple(fill_blank(stem, " ".join(option.split())) for option in options[i])
        examples.append(ChoiceExample(place, article, endings, label, group))
    return examples


def _level(name: str) -> str:
    """The level that a name tells; "" for none or both."""
    found = [level for level in RACE_LEVELS if level in name.lower()]
    return found[0] if len(found) == 1 else ""


def fill_blank(question: str, option: str) -> str:
    """The option in place of each "_" of the question, or behind a question without one.

    This is RACE's own rule (race_utils.py).
    """
    return question.replace("_", option) if "_" in question else f"{question} {option}"


def from_record(record: Record, max_choices: int, labelled: bool) -> ChoiceExample:
    """One record of the general or the SWAG form.

    The general form has context, question (optional), choices (a list) and label (number from 0,
    or letter from "A"); SWAG has sent1, sent2, ending0, ..., label. A gap in the question ("_" or
    more, standing alone) is filled by the choice, which otherwise follows it.
    """
    fields = record.fields
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
    given = fields.get("label") if labelled else None
    label = None if given in (None, "") else _label(record.where, given, len(options))
    stem = " ".join((stem or "").split())
    return ChoiceExample(record.where, context, tuple(_ending(stem, o) for o in options), label)


def from_hub(record: Record, max_choices: int, labelled: bool) -> list[ChoiceExample]:
    """The examples of a hub dataset's record in RACE's layout, SWAG's or the general one."""
    fields: Any = dict(record.fields)
    if "article" not in fields:
        return [from_record(record, max_choices, labelled)]
    text = hub_datasets.text
    if "questions" not in fields and "question" in fields:  # one question per record
        fields["questions"], fields["options"] = [fields["question"]], [fields.get("options", ())]
        fields["answers"] = [fields["answer"]] if "answer" in fields else None
    passage: dict[str, Any] = {
        "article": text(fields["article"]),
        "questions": [text(q) for q in fields.get("questions", ())],
        "options": [[text(o) for o in options] for options in fields.get("options", ())],
        "id": text(fields.get("id", fields.get("example_id", ""))),
    }
    if fields.get("answers") is not None:
        passage["answers"] = [text(a) for a in fields["answers"]]
    return _passage(record.where, passage, max_choices, labelled)


def _ending(stem: str, option: str) -> str:
    filled, gaps = BLANK.subn(lambda _: option, stem)
    return filled if gaps else f"{stem} {option}".strip()


def _label(where: str, given: object, count: int) -> int:
    """A label as number from 0 or letter from "A"; DataError outside the given choices."""
    text, label = str(given).strip(), -1
    if text.isdecimal() and len(text) < 10:
        label = int(text)
    elif len(text) == 1:
        label = ord(text) - ord("A")
    if not 0 <= label < count:
        raise DataError(f"{where}: answer {given!r} is none of the {count} choices; fix the line")
    return label


def _check_choices(where: str, context: str, options: object, limit: int) -> None:
    if not isinstance(options, list) or len(options) < 2:
        raise DataError(f"{where}: fewer than two choices; give a list of them")
    if len(options) > limit:
        raise DataError(
            f"{where}: {len(options)} choices, more than the {limit} configured; raise "
            "task.max_choices"
        )
    if not str(context).strip():
        raise DataError(f"{where}: the context is empty; fill it or drop the line")
    for option in options:
        if not isinstance(option, str):
            raise DataError(f"{where}: a choice is {str(option)[:60]!r}, not a text; fix it")
        if not option.strip():
            raise DataError(f"{where}: a choice is empty; fill it or drop the line")
