"""Choice of a table's columns with texts and labels, for the tasks whose examples are texts."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from albert_jax.config import TaskConfig
from albert_jax.data.sources import hub_datasets
from albert_jax.data.sources.tables import (
    IGNORED,
    Record,
    field,
    read_records,
    read_text,
    text_field,
)
from albert_jax.errors import ConfigError, DataError

LABEL_NAMES = ("label", "gold_label", "Quality", "quality", "is_duplicate")
SCORE_NAMES = ("score", "similarity")
TEXT_NAMES = (
    ("sentence",),
    ("text",),
    ("sentence1", "sentence2"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text_a", "text_b"),
    ("#1 String", "#2 String"),
)
"""Names that published datasets use."""
MAX_SCORE = 1e18
"""Its square is still a float32."""
SHOWN_LABELS = 20
"""Most labels that a message lists."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(TaskConfig):
    """Settings of the tasks whose examples are one or two texts in a table."""

    columns: tuple[str, ...] = ()
    """Names of a table's columns, in order, if it has no header ("-" ignores a column)."""
    text_columns: tuple[str, ...] = ()
    """The one or two columns with texts; empty: by their usual names."""
    label_column: str = ""
    """The column with the label or score; empty: by its usual name."""

    def validate(self, where: str = "task") -> None:
        """Raises ConfigError for more than two text columns."""
        super().validate(where)
        if len(self.text_columns) > 2:
            raise ConfigError(
                f"{where}.text_columns names {len(self.text_columns)} columns: at most two"
            )


@dataclass(frozen=True)
class TextExample:
    """One text or a pair, with a label or score as it is written."""

    where: str
    texts: tuple[str, ...]
    label: str | None = None


def load_records(path: str, columns: Sequence[str]) -> list[Record]:
    """All records of a table or of a hub dataset."""
    if hub_datasets.is_hub_dataset(path):
        return hub_datasets.load_records(path)
    return read_records(path, columns)


def read_texts(
    path: str,
    config: TableConfig,
    label_names: Sequence[str],
    *,
    labelled: bool,
    required: bool | None = None,
) -> list[TextExample]:
    """Examples of a table or hub dataset. Raises DataError, which names file and line.

    `label_names` are usual names of the label's column, the likeliest first. Labels are read if
    `labelled`, and then they are required unless `required` is False.
    """
    records = load_records(path, config.columns)
    required = labelled if required is None else required
    texts, label = _roles(records[0], config, label_names, required)
    if label and labelled and isinstance(records[0].fields.get(label), list):
        raise DataError(
            f"{records[0].where}: {label} is a list: an example has one label, and several at a "
            "time are not offered; fine-tune a model for each of them, with labels such as 0 and 1"
        )
    return [
        TextExample(
            record.where,
            tuple(text_field(record, name) for name in texts),
            text_field(record, label) if label and labelled else None,
        )
        for record in records
    ]


def _roles(
    record: Record, config: TableConfig, label_names: Sequence[str], required: bool
) -> tuple[tuple[str, ...], str]:
    """Names of the text columns and of the label's: as configured, by usual names, or by order."""
    columns = config.columns
    present = [name for name in (columns or record.fields) if name != IGNORED]
    if not present:
        raise ConfigError("--columns ignores every column: name those of the texts")
    label = config.label_column or next((name for name in label_names if name in present), "")
    if not label and columns and required:
        label = present[-1]
    texts = config.text_columns
    if not texts and columns:
        texts = tuple(name for name in present if name != label and name not in label_names)
    if not texts:
        texts = next((names for names in TEXT_NAMES[::-1] if set(names) <= set(present)), ())
    for name in (*config.text_columns, *([config.label_column] if config.label_column else [])):
        field(record, name)
    lacks_label = required and not label
    if lacks_label or not texts:
        kind, option = ("label", "label-column") if lacks_label else ("text", "text-columns")
        names = ", ".join(name[:40] for name in present)
        raise DataError(
            f"{record.where}: no column for the {kind} among {names}; name it with "
            f"--task.{option}, or, if the first line is an example and no header, name all columns "
            "in their order, such as --columns sentence,label"
        )
    if len(texts) > 2:
        raise ConfigError(
            f"{len(texts)} text columns ({', '.join(texts)}): at most two; "
            f"write {IGNORED!r} for a column to ignore"
        )
    return texts, label


def read_unlabeled(
    path: str, config: TableConfig, label_names: Sequence[str], columns: tuple[str, ...] | None
) -> list[TextExample]:
    """Examples for prediction.

    The table has the given `columns`, else those of the training table with or without the
    label's; if neither fits, the first error is raised.
    """
    label = config.label_column or next((n for n in label_names if n in config.columns), "")
    if not label and len(config.columns) > 1:
        label = config.columns[-1]
    config = replace(config, label_column="")

    def read(names: tuple[str, ...], hidden: Sequence[str] = ()) -> list[TextExample]:
        names = tuple(IGNORED if name in hidden else name for name in names)
        return read_texts(path, replace(config, columns=names), label_names, labelled=False)

    if columns is not None:
        config = replace(config, text_columns=())
        return read(columns, hidden=(label, *label_names))
    try:
        return read(tuple(name for name in config.columns if name != label))
    except DataError:
        if config.columns:
            with contextlib.suppress(DataError):
                return read(config.columns, hidden=(label,))
        raise


def lines_without_header(path: str) -> list[tuple[int, str]]:
    """The lines of a .txt that are not blank, with their numbers; none if the first is a header
    with usual names of texts, or the file is not a .txt."""
    lines = read_text(path).split("\n") if path.endswith(".txt") else [""]
    header = set(lines[0].strip("\ufeff\r").split("\t"))
    if any(header.issuperset(names) for names in TEXT_NAMES):
        return []
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def check_labels(labels: Sequence[str], where: str) -> None:
    """Raises ConfigError for a label that is named twice."""
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{where} names a label twice: {', '.join(labels)}")


def label_set(examples: Sequence[TextExample]) -> tuple[str, ...]:
    """The labels that occur: numbers first and in numeric order, words by code point."""

    def order(label: str) -> tuple[bool, float, str]:
        number = parse_number(label)
        return (number is None, number or 0.0, label)

    return tuple(sorted({x.label for x in examples if x.label is not None}, key=order))


def label_index(where: str, label: str | None, labels: Sequence[str]) -> int:
    """Index of a label in the label set; DataError names the line of one outside it."""
    if label is None or label not in labels:
        listed = ", ".join(labels[:SHOWN_LABELS])
        if len(labels) > SHOWN_LABELS:
            listed += f" and {len(labels) - SHOWN_LABELS} more"
        raise DataError(
            f"{where}: label {label!r} is not one of {listed}; fix the line or the label set"
            + (" (for scores: --task regression)" if parse_number(label or "") is not None else "")
        )
    return list(labels).index(label)


def parse_score(where: str, label: str | None) -> float:
    """A regression target; DataError for what is not a finite number."""
    number = parse_number(label or "")
    if number is None or abs(number) > MAX_SCORE:
        raise DataError(
            f"{where}: score {label!r} is not a number up to {MAX_SCORE:.0e}; fix the line"
        )
    return number


def parse_number(text: str) -> float | None:
    """The finite number that a text writes, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
