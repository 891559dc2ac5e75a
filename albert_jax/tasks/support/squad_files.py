"""Questions about contexts: SQuAD's JSON (1.1 and 2.0), and hub datasets in its layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from albert_jax.data.sources import hub_datasets
from albert_jax.data.sources.tables import Record, parse_json, read_text, require
from albert_jax.errors import DataError


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


def read_questions(path: str, *, answered: bool) -> list[Question]:
    """Questions of a SQuAD file or of a hub dataset. Raises DataError.

    With `answered` each answer must stand in its context where it says, and a question without
    answers must be marked `is_impossible` (2.0); otherwise answers are not read (prediction).
    """
    if hub_datasets.is_hub_dataset(path):
        return [from_hub(record, answered) for record in hub_datasets.load_records(path)]
    content = parse_json(read_text(path), path, 1, "fix the file")
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise DataError(f"{path}: no list 'data': give SQuAD's JSON, with data, paragraphs and qas")
    questions: dict[str, Question] = {}
    for a, article in enumerate(content["data"]):
        for p, paragraph in enumerate(require(article, "paragraphs", f"{path}: data[{a}]", list)):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            context = require(paragraph, "context", where, str)
            if not context.strip():
                raise DataError(f"{where}: context is empty; fill it or drop the paragraph")
            for q, item in enumerate(require(paragraph, "qas", where, list)):
                question = _question(item, f"{where}.qas[{q}]", context, answered)
                same = questions.setdefault(question.id, question)
                if same is not question:
                    raise DataError(
                        f"{question.where}: id {question.id!r} is also at {same.where}; ids "
                        "must differ"
                    )
    if not questions:
        raise DataError(f"{path}: no questions; give a file with at least one")
    return list(questions.values())


def from_hub(record: Record, answered: bool) -> Question:
    """A record in SQuAD's layout of the hubs, with parallel lists of texts and starts."""
    where, item = record.where, dict(record.fields)
    if answered:
        answers: Any = require(item, "answers", where)
        try:
            item["answers"] = [
                {"text": text, "answer_start": start}
                for text, start in zip(answers["text"], answers["answer_start"], strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: answers {str(answers)[:60]!r} are not lists 'text' and "
                "'answer_start' of one length: give SQuAD's layout"
            ) from error
        item.setdefault("is_impossible", not item["answers"])
    return _question(item, where, require(item, "context", where, str), answered)


def _question(item: Any, where: str, context: str, answered: bool) -> Question:
    """The question; DataError if it is blank, or an answer is not where it claims to be."""
    question = require(item, "question", where, str)
    id = str(require(item, "id", where))
    answers: list[Any] = []
    if answered and item.get("answers") is not None:
        answers = require(item, "answers", where, list)
    answers = [
        Answer(require(x, "text", where, str), require(x, "answer_start", where, int))
        for x in answers
    ]
    named = f"{where} (id {id})"
    if not question.strip():
        raise DataError(f"{named}: question is empty; fill it or drop it")
    for answer in answers:
        written = context[answer.start : answer.start + len(answer.text)]
        if answer.start < 0 or not answer.text.strip() or written != answer.text:
            raise DataError(
                f"{named}: answer {answer.text[:60]!r} is not in the context at character "
                f"{answer.start}; fix answer_start or the text"
            )
    impossible = bool(item.get("is_impossible", False))
    if answered and not answers and not impossible:
        raise DataError(f"{named}: no answers and not is_impossible; add one of the two")
    if answers and impossible:
        raise DataError(f"{named}: is_impossible, but has answers; remove one of the two")
    return Question(where, id, question, context, tuple(answers))
