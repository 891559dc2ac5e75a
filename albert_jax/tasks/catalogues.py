"""Examples from TensorFlow Datasets and Hugging Face datasets, imported only where asked for.

A place is written ``tfds:NAME:SPLIT`` or ``hf:PATH[/CONFIG]:SPLIT`` ("tfds:glue/sst2:train",
"hf:glue/sst2:validation"). TensorFlow itself is never imported: TFDS reads through its data
source interface, which needs the data set prepared as array_record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.examples import Answer, Choices, Question
from albert_jax.tasks.formats import Record
from albert_jax.tasks.formats_qa import question, race_passage

PREFIXES = ("tfds:", "hf:")


def is_catalogue(place: str) -> bool:
    """Whether a place names a catalogue's data set and not a file."""
    return place.startswith(PREFIXES)


def load_records(place: str) -> list[Record]:
    """All records of a data set; integer class labels become their names.

    Raises ConfigError for a badly written place or a missing package, DataError for a data set
    that the package cannot load.
    """
    kind, _, rest = place.partition(":")
    name, _, split = rest.rpartition(":")
    if kind not in ("tfds", "hf") or not name or not split:
        raise ConfigError(f"{place!r}: write tfds:NAME:SPLIT or hf:PATH[/CONFIG]:SPLIT")
    rows, classes = _tfds(place, name, split) if kind == "tfds" else _hf(place, name, split)
    return list(_records(place, rows, classes))


def squad_questions(records: Iterable[Record], *, answered: bool = True) -> list[Question]:
    """Questions of records in the catalogues' SQuAD layout (parallel lists of text and start)."""
    found = []
    for record in records:
        fields: Any = record.fields
        try:
            given = fields["answers"]
            pairs = list(zip(given["text"], given["answer_start"], strict=True))
            answers = [Answer(_text(text), int(start)) for text, start in pairs]
            found.append(
                question(
                    record.where,
                    id=_text(fields["id"]),
                    text=_text(fields["question"]),
                    context=_text(fields["context"]),
                    answers=answers,
                    impossible=bool(fields.get("is_impossible", not answers)),
                    answered=answered,
                    title=_text(fields.get("title", "")),
                )
            )
        except KeyError as error:
            raise DataError(f"{record.where}: no {error.args[0]!r}; not SQuAD's layout") from error
    return found


def race_choices(records: Iterable[Record], choices: int = 4) -> list[Choices]:
    """Examples of records in RACE's layout: a passage with questions, or one question each."""
    found = []
    for record in records:
        fields: Any = dict(record.fields)
        if "questions" not in fields and "question" in fields:
            fields["questions"] = [fields["question"]]
            fields["options"] = [list(fields.get("options", ()))]
            fields["answers"] = [fields["answer"]] if "answer" in fields else None
            fields["id"] = fields.get("example_id", "")
        passage = {
            "article": _text(fields.get("article", "")),
            "questions": [_text(q) for q in fields.get("questions", ())],
            "options": [[_text(o) for o in options] for options in fields.get("options", ())],
            "id": _text(fields.get("id", fields.get("example_id", ""))),
        }
        if fields.get("answers") is not None:
            passage["answers"] = [_text(a) for a in fields["answers"]]
        found += race_passage(record.where, passage, choices)
    return found


def _records(place: str, rows: Iterable[Any], classes: dict[str, list[str]]) -> Iterator[Record]:
    for number, row in enumerate(rows):
        fields: dict[str, object] = {}
        for name, value in row.items():
            if name in classes and int(value) >= 0:
                fields[name] = classes[name][int(value)]
            elif name in classes:
                fields[name] = None
            else:
                fields[name] = value.decode("utf-8") if isinstance(value, bytes) else value
        yield Record(f"{place} record {number}", fields)


def _tfds(place: str, name: str, split: str) -> tuple[Iterable[Any], dict[str, list[str]]]:
    import tensorflow_datasets as tfds  # type: ignore[import-untyped]

    try:
        builder: Any = tfds.builder(name, file_format="array_record")
        source: Any = builder.as_data_source(split=split)
    except Exception as error:  # the package raises many kinds; each means "not loadable"
        raise DataError(
            f"{place}: TFDS cannot load it ({_first_line(error)}); prepare it with "
            f"`tfds build {name} --file_format=array_record`"
        ) from error
    labels = {
        key: list(feature.names)
        for key, feature in builder.info.features.items()
        if getattr(feature, "names", None)
    }
    return source, labels


def _hf(place: str, name: str, split: str) -> tuple[Iterable[Any], dict[str, list[str]]]:
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            f"{place}: Hugging Face datasets is not installed; pip install datasets"
        ) from error
    path, _, config = name.partition("/")
    try:
        loaded: Any = datasets.load_dataset(path, config or None, split=split)
    except Exception as error:  # as above
        raise DataError(f"{place}: datasets cannot load it ({_first_line(error)})") from error
    labels = {
        key: list(feature.names)
        for key, feature in loaded.features.items()
        if getattr(feature, "names", None)
    }
    return loaded, labels


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
