"""Questions about contexts: SQuAD's JSON (1.1 and 2.0), and hub datasets in its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax.data.sources.hub_datasets import text
from albert_jax.data.sources.tables import Record, parse_json, read_text
from albert_jax.errors import DataError
from albert_jax.tasks.json_fields import require


@dataclass(frozen=True)
class Answer:
    """Text of an answer and its first character in the context."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context; it has no answers where it cannot be answered."""

    where: str
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()


def read_squad(path: str | Path, *, answered: bool) -> list[Question]:
    """Questions of a SQuAD JSON file.

    With `answered` each answer must stand in its context where it says, and a question without
    answers must be marked `is_impossible` (2.0); otherwise answers are not read (prediction).
    Raises DataError.
    """
    content = parse_json(read_text(path), path, 1, "fix the file")
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise DataError(f"{path}: no 'data' list; this is not SQuAD's JSON")
    questions: list[Question] = []
    for a, article in enumerate(content["data"]):
        for p, paragraph in enumerate(require(article, "paragraphs", f"{path}: data[{a}]", list)):
            place = f"{path}: data[{a}].paragraphs[{p}]"
            context = require(paragraph, "context", place, str)
            if not context.strip():
                raise DataError(f"{place}: context is empty; fill it or drop the paragraph")
            for q, item in enumerate(require(paragraph, "qas", place, list)):
                questions.append(_question(item, f"{place}.qas[{q}]", context, answered))
    if not questions:
        raise DataError(f"{path}: no questions; give a file with at least one")
    _check_ids(questions)
    return questions


def from_hub(record: Record, answered: bool) -> Question:
    """A record in SQuAD's layout of the hubs, with parallel lists of texts and starts."""
    fields: Any = record.fields
    try:
        lists = fields["answers"] if answered else {"text": (), "answer_start": ()}
        pairs = zip(lists["text"], lists["answer_start"], strict=True)
        answers = tuple(Answer(text(answer), int(start)) for answer, start in pairs)
        question = Question(
            record.where,
            text(fields["id"]),
            text(fields["question"]),
            text(fields["context"]),
            answers,
        )
    except KeyError as error:
        raise DataError(f"{record.where}: no {error.args[0]!r}; not SQuAD's layout") from error
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{record.where}: answers {str(fields['answers'])[:60]!r} are not lists 'text' and "
            "'answer_start' of one length; not SQuAD's layout"
        ) from error
    impossible = bool(fields.get("is_impossible", not answers))
    return _checked(question, impossible=answered and impossible, answered=answered)


def _question(item: Any, where: str, context: str, answered: bool) -> Question:
    answers: Sequence[Any] = ()
    if answered and isinstance(item, dict) and item.get("answers") is not None:
        answers = require(item, "answers", where, list)
    question = Question(
        where=where,
        question=require(item, "question", where, str),
        id=str(require(item, "id", where)),
        context=context,
        answers=tuple(
            Answer(require(x, "text", where, str), require(x, "answer_start", where, int))
            for x in answers
        ),
    )
    impossible = answered and bool(item.get("is_impossible", False))
    return _checked(question, impossible=impossible, answered=answered)


def _checked(question: Question, *, impossible: bool, answered: bool) -> Question:
    """The question; DataError if it is blank, or an answer is not where it claims to be."""
    where, context = f"{question.where} (id {question.id})", question.context
    if not question.question.strip():
        raise DataError(f"{where}: question is empty; fill it or drop it")
    for answer in question.answers:
        text_there = context[answer.start : answer.start + len(answer.text)]
        if answer.start < 0 or not answer.text.strip() or text_there != answer.text:
            raise DataError(
                f"{where}: answer {answer.text[:60]!r} is not in the context at character "
                f"{answer.start}; fix answer_start or the text"
            )
    if answered and not question.answers and not impossible:
        raise DataError(f"{where}: no answers and not is_impossible; add one of the two")
    if impossible and question.answers:
        raise DataError(f"{where}: is_impossible, but has answers; remove one of the two")
    return question


def _check_ids(questions: Sequence[Question]) -> None:
    seen: dict[str, str] = {}
    for question in questions:
        if question.id in seen:
            raise DataError(
                f"{question.where}: id {question.id!r} stands also at {seen[question.id]}; ids "
                "must differ"
            )
        seen[question.id] = question.where
