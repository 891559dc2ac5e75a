"""Questions: SQuAD (1.1 and 2.0), RACE, and multiple choice in its general and SWAG forms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from albert_jax.errors import DataError
from albert_jax.tasks.examples import Answer, Choices, Question
from albert_jax.tasks.formats import Record, read_records, read_text, text_field


def read_squad(path: str | Path, *, answered: bool = True) -> list[Question]:
    """Questions of a SQuAD JSON file.

    Each answer must stand in its context where it says. With ``answered`` a question without
    answers must say ``is_impossible`` (2.0); else answers may be missing (prediction).
    """
    text = read_text(path)
    try:
        articles = json.loads(text)["data"]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}); mend the file") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: no 'data' list; this is not SQuAD's JSON") from error
    questions: list[Question] = []
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(_need(article, "paragraphs", f"{path}: data[{a}]")):
            place = f"{path}: data[{a}].paragraphs[{p}]"
            context = _need(paragraph, "context", place)
            if not str(context).strip():
                raise DataError(f"{place}: context is empty; fill it or drop the paragraph")
            for q, asked in enumerate(_need(paragraph, "qas", place)):
                where = f"{place}.qas[{q}]"
                questions.append(
                    question(
                        where,
                        id=str(_need(asked, "id", where)),
                        text=_need(asked, "question", where),
                        context=context,
                        answers=[
                            Answer(_need(x, "text", where), _need(x, "answer_start", where))
                            for x in asked.get("answers") or ()
                        ],
                        impossible=bool(asked.get("is_impossible", False)),
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


def read_race(path: str | Path, *, choices: int = 4) -> list[Choices]:
    """Questions of a RACE file (one JSON object, or one per line) or of a folder of such files.

    An object holds article, questions, options, answers ("A".."D") and id; the part (middle,
    high) is the one that the id or the path names.
    """
    root = Path(path)
    if root.is_dir():
        files = sorted(
            file for file in root.rglob("*") if file.suffix in (".txt", ".json", ".jsonl")
        )
        if not files:
            raise DataError(f"{path}: no .txt, .json or .jsonl files; give RACE's folder")
        return [example for file in files for example in read_race(file, choices=choices)]
    text = read_text(path)
    try:
        passages = [(f"{path}:1", json.loads(text))]
    except json.JSONDecodeError:
        passages = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    passages.append((f"{path}:{number}", json.loads(line)))
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not JSON ({error.msg}); one passage per line"
                    ) from error
    if not passages:
        raise DataError(f"{path}: no passages; give a file with at least one")
    return [x for where, passage in passages for x in race_passage(where, passage, choices)]


def is_race(path: str | Path) -> bool:
    """Whether a path is a folder or a file whose first object is a passage of RACE."""
    if Path(path).is_dir():
        return True
    text = read_text(path).lstrip()
    try:
        first, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        return False
    return isinstance(first, dict) and "article" in first


def race_passage(where: str, passage: dict[str, Any], choices: int = 4) -> list[Choices]:
    """The examples of one passage: question and option joined, "_" replaced by the option."""
    article = _need(passage, "article", where)
    asked, options = _need(passage, "questions", where), _need(passage, "options", where)
    answers = passage.get("answers")
    if len(asked) != len(options) or (answers is not None and len(asked) != len(answers)):
        raise DataError(f"{where}: questions, options and answers differ in number; mend them")
    name = f"{passage.get('id', '')} {where}".lower()
    group = next((part for part in ("middle", "high") if part in name), "")
    found = []
    for i, text in enumerate(asked):
        place = f"{where} question {i + 1}"
        _check_choices(place, article, options[i], choices)
        label = None if answers is None else choice_label(place, answers[i], len(options[i]))
        # One space for each run of white space, before the blank is filled: as the original's
        # text cleaning, which runs on question and option apart.
        stem = " ".join(text.split())
        endings = tuple(fill_blank(stem, " ".join(option.split())) for option in options[i])
        found.append(Choices(place, article, endings, label, group))
    return found


def fill_blank(question_text: str, option: str) -> str:
    """The option in place of each "_" of the question, or behind a question without one."""
    if "_" in question_text:
        return question_text.replace("_", option)
    return f"{question_text} {option}"


def read_choices(path: str | Path, *, choices: int) -> list[Choices]:
    """Multiple choice from JSON lines or a table.

    Either JSON objects with context, question (optional), choices (a list) and label (number
    from 0, or letter from "A"), or SWAG's columns: sent1, sent2, ending0.., label.
    """
    return [choices_of(record, choices) for record in read_records(path)]


def choices_of(record: Record, choices: int) -> Choices:
    """One record of the general or of the SWAG form as an example."""
    fields = record.fields
    if "ending0" in fields:
        context, stem = text_field(record, "sent1"), str(fields.get("sent2", ""))
        names = [f"ending{i}" for i in range(len(fields)) if f"ending{i}" in fields]
        options: Any = [text_field(record, name) for name in names]
    else:
        context, stem = text_field(record, "context"), str(fields.get("question", ""))
        options = fields.get("choices")
    _check_choices(record.where, context, options, choices)
    given = fields.get("label")
    label = None if given in (None, "") else choice_label(record.where, given, len(options))
    stem = " ".join(stem.split())
    endings = tuple(fill_blank(stem, option) if stem else option for option in options)
    return Choices(record.where, context, endings, label)


def choice_label(where: str, given: object, count: int) -> int:
    """A label as number from 0 or letter from "A"; DataError outside the given choices."""
    text = str(given).strip()
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
        if not isinstance(option, str) or not option.strip():
            raise DataError(f"{where}: a choice is empty; fill it or drop the line")


def _unique(questions: list[Question]) -> None:
    seen: dict[str, str] = {}
    for asked in questions:
        if asked.id in seen:
            raise DataError(
                f"{asked.where}: id {asked.id!r} stands also at {seen[asked.id]}; ids must differ"
            )
        seen[asked.id] = asked.where


def _need(holder: Any, name: str, where: str) -> Any:
    if not isinstance(holder, dict) or name not in holder:
        raise DataError(f"{where}: no {name!r}; add it")
    return holder[name]
