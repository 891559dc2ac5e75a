"""Questions: SQuAD (1.1 and 2.0), RACE, and multiple choice in its general and SWAG forms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from albert_jax.errors import DataError
from albert_jax.tasks.examples import Answer, Choices, Question
from albert_jax.tasks.tables import Record, parse_json, read_records, read_text, text_field

BLANK = re.compile(r"(?<!\w)_+(?!\w)")
"""A gap in a question, to be filled by the choice."""
PARTS = ("middle", "high")
"""Levels of RACE."""
KINDS = {str: "a text", int: "a whole number", list: "a list"}


def read_squad(path: str | Path, *, answered: bool = True) -> list[Question]:
    """Questions of a SQuAD JSON file.

    With ``answered`` each answer must stand in its context where it says, and a question without
    answers must say ``is_impossible`` (2.0); else answers are not read (prediction).
    """
    whole = parse_json(read_text(path), path, 1, "mend the file")
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        raise DataError(f"{path}: no 'data' list; this is not SQuAD's JSON")
    questions: list[Question] = []
    for a, article in enumerate(whole["data"]):
        for p, paragraph in enumerate(_need(article, "paragraphs", f"{path}: data[{a}]", list)):
            place = f"{path}: data[{a}].paragraphs[{p}]"
            context = _need(paragraph, "context", place, str)
            if not context.strip():
                raise DataError(f"{place}: context is empty; fill it or drop the paragraph")
            for q, asked in enumerate(_need(paragraph, "qas", place, list)):
                where = f"{place}.qas[{q}]"
                text = _need(asked, "question", where, str)
                given = ()
                if answered and asked.get("answers") is not None:
                    given = _need(asked, "answers", where, list)
                questions.append(
                    question(
                        where,
                        id=str(_need(asked, "id", where)),
                        text=text,
                        context=context,
                        answers=[
                            Answer(
                                _need(x, "text", where, str), _need(x, "answer_start", where, int)
                            )
                            for x in given
                        ],
                        impossible=answered and bool(asked.get("is_impossible", False)),
                        answered=answered,
                        title=str(article.get("title", "")),
                    )
                )
    if not questions:
        raise DataError(f"{path}: no questions; give a file with at least one")
    _unique(questions)
    return questions


def question(
    where: str,
    *,
    id: str,
    text: str,
    context: str,
    answers: Iterable[Answer],
    impossible: bool = False,
    answered: bool = True,
    title: str = "",
) -> Question:
    """A checked question; DataError if it is blank or an answer is not where it claims to be."""
    found = tuple(answers)
    if not text.strip():
        raise DataError(f"{where} (id {id}): question is empty; fill it or drop it")
    for answer in found:
        stands = context[answer.start : answer.start + len(answer.text)]
        if answer.start < 0 or not answer.text.strip() or stands != answer.text:
            raise DataError(
                f"{where} (id {id}): answer {answer.text[:60]!r} is not in the context at "
                f"character {answer.start}; mend answer_start or the text"
            )
    if answered and not found and not impossible:
        raise DataError(f"{where} (id {id}): no answers and not is_impossible; add one of the two")
    if impossible and found:
        raise DataError(f"{where} (id {id}): is_impossible, but has answers; remove one of the two")
    return Question(where, id, text, context, found, title)


def read_race(path: str | Path, *, choices: int = 4, labelled: bool = True) -> list[Choices]:
    """Questions of a RACE file (one JSON object, or one per line) or of a folder of such files.

    An object holds article, questions, options, answers ("A".."D"; not read unless ``labelled``)
    and id; the part (middle, high) is the one that the id names, or else the path.
    """
    root = Path(path)
    if root.is_dir():
        files = sorted(
            file for file in root.rglob("*") if file.suffix in (".txt", ".json", ".jsonl")
        )
        if not files:
            raise DataError(f"{path}: no .txt, .json or .jsonl files; give RACE's folder")
        return [
            example
            for file in files
            for example in read_race(file, choices=choices, labelled=labelled)
        ]
    text = read_text(path)
    try:
        json.loads(text)
        lines = [text]
    except (ValueError, RecursionError):
        lines = text.split("\n")
    found = [
        (f"{path}:{number}", parse_json(line, path, number, "one passage per line"))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise DataError(f"{path}: no passages; give a file with at least one")
    return [x for where, passage in found for x in race_passage(where, passage, choices, labelled)]


def is_race(path: str | Path) -> bool:
    """Whether a path is a folder or a file whose first object is a passage of RACE."""
    if Path(path).is_dir():
        return True
    text = read_text(path).lstrip()
    try:
        first, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "article" in first


def race_passage(
    where: str, passage: dict[str, Any], choices: int = 4, labelled: bool = True
) -> list[Choices]:
    """The examples of one passage: question and option joined, "_" replaced by the option."""
    article = _need(passage, "article", where, str)
    asked, options = (_need(passage, name, where, list) for name in ("questions", "options"))
    answers = None
    if labelled and passage.get("answers") is not None:
        answers = _need(passage, "answers", where, list)
    if len(asked) != len(options) or (answers is not None and len(asked) != len(answers)):
        raise DataError(f"{where}: questions, options and answers differ in number; mend them")
    group = _part(str(passage.get("id", ""))) or _part(where)
    found = []
    for i, text in enumerate(asked):
        place = f"{where} question {i + 1}"
        if not isinstance(text, str):
            raise DataError(f"{place}: is {text!r}, not a text; mend it")
        _check_choices(place, article, options[i], choices)
        label = None if answers is None else choice_label(place, answers[i], len(options[i]))
        # One space for each run of white space, before the blank is filled: as the original's
        # text cleaning, which runs on question and option apart.
        stem = " ".join(text.split())
        endings = tuple(fill_blank(stem, " ".join(option.split())) for option in options[i])
        found.append(Choices(place, article, endings, label, group))
    return found


def _part(name: str) -> str:
    """The level that a name tells; "" for none, or both."""
    found = [part for part in PARTS if part in name.lower()]
    return found[0] if len(found) == 1 else ""


def fill_blank(question_text: str, option: str) -> str:
    """The option in place of each "_" of the question, or behind a question without one: RACE's
    own rule (race_utils.py)."""
    if "_" in question_text:
        return question_text.replace("_", option)
    return f"{question_text} {option}"


def read_choices(
    path: str | Path, *, choices: int, columns: Sequence[str] = (), labelled: bool = True
) -> list[Choices]:
    """Multiple choice from JSON lines or a table.

    Either JSON objects with context, question (optional), choices (a list) and label (number
    from 0, or letter from "A"), or SWAG's columns: sent1, sent2, ending0.., label. A gap in the
    question ("_" or more, standing alone) is filled by the choice, which else follows it.
    ``columns`` names those of a table without a header. Labels are not read unless ``labelled``.
    """
    return [choices_of(record, choices, labelled) for record in read_records(path, columns)]


def choices_of(record: Record, choices: int, labelled: bool = True) -> Choices:
    """One record of the general or of the SWAG form as an example."""
    fields = record.fields
    if "ending0" in fields:
        context, stem = text_field(record, "sent1"), fields.get("sent2")
        names = [f"ending{i}" for i in range(len(fields)) if f"ending{i}" in fields]
        options: Any = [text_field(record, name) for name in names]
    else:
        context, stem = text_field(record, "context"), fields.get("question")
        options = fields.get("choices")
    if not isinstance(stem, str | None):
        raise DataError(f"{record.where}: the question is {str(stem)[:60]!r}, not a text; mend it")
    _check_choices(record.where, context, options, choices)
    given = fields.get("label") if labelled else None
    label = None if given in (None, "") else choice_label(record.where, given, len(options))
    stem = " ".join((stem or "").split())
    endings = tuple(_ending(stem, option) for option in options)
    return Choices(record.where, context, endings, label)


def _ending(stem: str, option: str) -> str:
    filled, gaps = BLANK.subn(lambda _: option, stem)
    return filled if gaps else f"{stem} {option}".strip()


def choice_label(where: str, given: object, count: int) -> int:
    """A label as number from 0 or letter from "A"; DataError outside the given choices."""
    text = str(given).strip()
    if len(text) > 9:
        label = -1
    else:
        label = int(text) if text.isdecimal() else ord(text) - ord("A") if len(text) == 1 else -1
    if not 0 <= label < count:
        raise DataError(f"{where}: answer {given!r} is none of the {count} choices; mend the line")
    return label


def _check_choices(where: str, context: str, options: object, most: int) -> None:
    if not isinstance(options, list) or len(options) < 2:
        raise DataError(f"{where}: fewer than two choices; give a list of them")
    if len(options) > most:
        raise DataError(
            f"{where}: {len(options)} choices, more than the {most} configured; raise task.choices"
        )
    if not str(context).strip():
        raise DataError(f"{where}: the context is empty; fill it or drop the line")
    for option in options:
        if not isinstance(option, str):
            raise DataError(f"{where}: a choice is {str(option)[:60]!r}, not a text; mend it")
        if not option.strip():
            raise DataError(f"{where}: a choice is empty; fill it or drop the line")


def _unique(questions: list[Question]) -> None:
    seen: dict[str, str] = {}
    for asked in questions:
        if asked.id in seen:
            raise DataError(
                f"{asked.where}: id {asked.id!r} stands also at {seen[asked.id]}; ids must differ"
            )
        seen[asked.id] = asked.where


def _need(holder: Any, name: str, where: str, kind: type = object) -> Any:
    if not isinstance(holder, dict) or name not in holder:
        raise DataError(f"{where}: no {name!r}; add it")
    value = holder[name]
    if not isinstance(value, kind):
        raise DataError(f"{where}: {name} is {str(value)[:60]!r}, not {KINDS[kind]}; mend it")
    return value
