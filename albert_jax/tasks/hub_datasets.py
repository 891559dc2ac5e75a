"""Examples from TensorFlow Datasets and Hugging Face datasets, imported only where asked for.

A place is written ``tfds:NAME:SPLIT`` or ``hf:[OWNER/]NAME[/CONFIG]:SPLIT``
("tfds:glue/sst2:train", "hf:nyu-mll/glue/sst2:validation[:100]"). TensorFlow itself is never
imported: TFDS reads through its data source interface, which needs the data set prepared as
array_record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.examples import Answer, Choices, Question
from albert_jax.tasks.formats_qa import choices_of, question, race_passage
from albert_jax.tasks.tables import Record

PREFIXES = ("tfds:", "hf:")
_PLACE = re.compile(r"(tfds|hf):(.+):((?:[^:\[\]]|\[[^\[\]]*\])+)")
"""Kind, name and split; a colon within brackets is part of the split."""


def is_catalogue(place: str) -> bool:
    """Whether a place names a catalogue's data set and not a file."""
    return place.startswith(PREFIXES)


def load_records(place: str) -> list[Record]:
    """All records of a data set; integer class labels become their names.

    Raises ConfigError for a badly written place or a missing package, DataError for a data set
    that the package cannot load.
    """
    matched = _PLACE.fullmatch(place)
    if matched is None:
        raise ConfigError(f"{place!r}: write tfds:NAME:SPLIT or hf:[OWNER/]NAME[/CONFIG]:SPLIT")
    kind, name, split = matched.groups()
    rows, classes = _tfds(place, name, split) if kind == "tfds" else _hf(place, name, split)
    found = list(_records(place, rows, classes))
    if not found:
        raise DataError(f"{place}: no records; name a split with at least one")
    return found


def squad_questions(records: Iterable[Record], *, answered: bool = True) -> list[Question]:
    """Questions of records in the catalogues' SQuAD layout (parallel lists of text and start)."""
    found = []
    for record in records:
        fields: Any = record.fields
        try:
            given = fields["answers"] if answered else {"text": (), "answer_start": ()}
            pairs = list(zip(given["text"], given["answer_start"], strict=True))
            answers = [Answer(_text(text), int(start)) for text, start in pairs]
            found.append(
                question(
                    record.where,
                    id=_text(fields["id"]),
                    text=_text(fields["question"]),
                    context=_text(fields["context"]),
                    answers=answers,
                    impossible=answered and bool(fields.get("is_impossible", not answers)),
                    answered=answered,
                    title=_text(fields.get("title", "")),
                )
            )
        except KeyError as error:
            raise DataError(f"{record.where}: no {error.args[0]!r}; not SQuAD's layout") from error
    return found


def choices(records: Iterable[Record], most: int = 4, labelled: bool = True) -> list[Choices]:
    """Examples of records in RACE's layout (a passage with questions, or one question each), in
    SWAG's or in the general one; labels are not read unless ``labelled``."""
    found = []
    for record in records:
        fields: Any = dict(record.fields)
        if "article" not in fields:
            found.append(choices_of(record, most, labelled))
            continue
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
        found += race_passage(record.where, passage, most, labelled)
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
    # What stands behind the last slash is part of the name on the Hub, or a config.
    path, _, config = name.rpartition("/")
    loaded: Any = None
    for attempt in ((name, None), (path, config)):
        try:
            loaded = datasets.load_dataset(*attempt, split=split)
            break
        except Exception as error:  # as above
            if not path or attempt == (path, config):
                raise DataError(
                    f"{place}: datasets cannot load it ({_first_line(error)})"
                ) from error
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
