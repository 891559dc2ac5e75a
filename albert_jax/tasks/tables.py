"""Tables: TSV, CSV and JSON lines, to examples of texts, labels, pairs and targets.

A file is read as records (place, named fields); the same functions turn records of catalogues
(``catalogues.py``) into examples. Every complaint names file and line.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax import files
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.examples import MinimalPair, Sentences, SourceTarget

CLASS_NAMES = ("label", "gold_label", "Quality", "quality", "is_duplicate")
SCORE_NAMES = ("score", "similarity")
LARGEST_SCORE = 1e18
"""Its square is still a float32."""
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
IGNORED = "-"
"""A column of this name is read and dropped."""
ALL_PAIRS = "all"
"""Name of all sets of minimal pairs together."""
LONGEST_FIELD = 1 << 30
"""Characters of a field of a CSV file; Python's own limit is shorter than a long text."""


@dataclass(frozen=True)
class Record:
    """One line of a table: where it stands and its fields by name."""

    where: str
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Roles:
    """Which columns hold the texts (in order) and which one the label."""

    texts: tuple[str, ...]
    label: str | None


def read_text(path: str | Path) -> str:
    """A whole UTF-8 file (a byte order mark is dropped); DataError names the line of bad bytes."""
    raw = files.read(str(path))
    if raw is None:
        raise DataError(f"{path}: no such file; check the path")
    return decode(raw, path)


def decode(raw: bytes, place: str | Path) -> str:
    """UTF-8 bytes as text, without a byte order mark; DataError names the line of bad bytes."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{place}:{line}: not UTF-8; convert it to UTF-8") from error


def parse_json(text: str, path: str | Path, line: int, mend: str) -> Any:
    """The value of a JSON text that begins on a line of a file.

    Raises DataError, which ends with `mend`, for what is not JSON, and for half a surrogate pair,
    which no text can hold.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise DataError(f"{where}: not JSON ({error.msg}); {mend}") from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}:{line}: half of a surrogate pair, such as \\ud83d alone; mend the text"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; [[[[...
        raise DataError(f"{path}:{line}: not readable ({str(error)[:60]}); {mend}") from error
    return value


def read_records(path: str | Path, columns: Sequence[str] = ()) -> list[Record]:
    """Records of a ``.tsv``/``.txt``, ``.csv`` or ``.jsonl``/``.json`` table.

    ``columns`` names the columns of a file without a header, in order. If the first line holds
    some of these names, it is a header, and then it must hold all of them; without ``columns``
    the first line is the header. Tabs are never quoted (as in GLUE), commas are (RFC 4180). Blank
    lines are passed over, but where rows have one column: there they may be a row.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".json"):
        records = list(_json_lines(path, columns))
    elif suffix in (".tsv", ".txt", ".csv"):
        records = list(_table(path, columns, comma=suffix == ".csv"))
    else:
        raise DataError(f"{path}: unknown format {suffix!r}; give .tsv, .txt, .csv or .jsonl")
    if not records:
        raise DataError(f"{path}: no records; give a file with at least one")
    return records


def _table(path: str | Path, columns: Sequence[str], *, comma: bool) -> Iterator[Record]:
    rows = _comma_rows(path) if comma else _tab_rows(path)
    names: list[str] | None = None
    blank = 0
    for line, row in rows:
        if not row:
            blank = blank or line
            continue
        if names is None and not columns and not "".join(row).strip():
            continue
        if names is None:
            known = [name for name in columns if name != IGNORED]
            found = [name for name in known if name in row]
            if not columns or found:
                blank, names = 0, row
                if len(columns) == len(row) and all(
                    name in (IGNORED, given) for name, given in zip(columns, row, strict=True)
                ):
                    names = list(columns)
                lacking = [name for name in known if name not in row]
                if lacking:
                    raise DataError(
                        f"{path}:{line}: no column {lacking[0]!r} among {', '.join(names)}; "
                        "correct --columns or the header"
                    )
                _differ(names, f"{path}:{line}", columns)
                continue
            names = list(columns)
            _differ(names, "--columns", columns)
        if blank and len(names) == 1:
            raise DataError(f"{path}:{blank}: {names[0]} is empty; fill it or drop the line")
        blank = 0
        if len(row) != len(names):
            raise DataError(
                f"{path}:{line}: {len(row)} columns where {len(names)} are expected "
                f"({', '.join(names)}); mend the line or --columns"
            )
        yield Record(f"{path}:{line}", dict(zip(names, row, strict=True)))


def _differ(names: Sequence[str], where: str, columns: Sequence[str]) -> None:
    """Raises DataError for a name that is likely used and stands twice."""
    used = {*columns, *CLASS_NAMES, *SCORE_NAMES, *(name for t in TEXT_NAMES for name in t)}
    named = [name for name in names if name in used and name != IGNORED]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{where}: column {twice!r} stands twice; name all with --columns, and the one to "
            f"ignore {IGNORED!r}"
        )


def _tab_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if "\t" in line or line.strip() else []


def _comma_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_FIELD)
    # Not splitlines(): texts may hold U+2028 and other ends of lines that are none of CSV's.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    start = 1
    try:
        for row in reader:
            spaces = len(row) == 1 and row[0].isspace()
            yield start, [] if spaces else row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: broken CSV ({error}); mend the quotes") from error


def _json_lines(path: str | Path, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        fields = parse_json(line, path, number, "one object per line")
        if not isinstance(fields, dict):
            raise DataError(f"{where}: not a JSON object; one object per line")
        for name in columns:
            if name != IGNORED and name not in fields:
                raise DataError(
                    f"{where}: no column {name!r} among {', '.join(fields)}; correct --columns"
                )
        yield Record(where, fields)


def roles(
    record: Record,
    columns: Sequence[str] = (),
    *,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    label_names: Sequence[str],
    needs_label: bool = True,
) -> Roles:
    """The parts that columns play: the given ones, else by their usual names, else by order.

    With ``columns`` the label is the one with a usual name (the first of ``label_names`` that is
    there), or the last; all others are texts (at most two). Without, the record's own names must
    be usual ones.
    """
    present = [name for name in (columns or record.fields) if name != IGNORED]
    if not present:
        raise ConfigError("--columns ignores every column: name those of the texts")
    for name in (*text_columns, *([label_column] if label_column else [])):
        if name not in record.fields:
            raise DataError(
                f"{record.where}: no column {name!r} among {', '.join(record.fields)}; "
                "correct the column's name"
            )
    label = label_column or next((name for name in label_names if name in present), "")
    if not label and columns and needs_label:
        label = present[-1]
    if needs_label and not label:
        raise DataError(
            f"{record.where}: no column for the label among {', '.join(present)}; "
            "name it with --task.label-column, or all with --columns"
        )
    texts = tuple(text_columns)
    if not texts and columns:
        texts = tuple(name for name in present if name != label and name not in label_names)
    if not texts:
        texts = next((t for t in TEXT_NAMES[::-1] if set(t) <= set(present)), ())
    if not texts:
        raise DataError(
            f"{record.where}: no column for the text among {', '.join(present)}; "
            "name it with --task.text-columns, or all with --columns"
        )
    if len(texts) > 2:
        raise ConfigError(
            f"{len(texts)} text columns ({', '.join(texts)}): at most two; "
            f"write {IGNORED!r} for a column to ignore"
        )
    return Roles(texts, label or None)


def sentences(records: Iterable[Record], parts: Roles) -> list[Sentences]:
    """Examples of texts with their labels (as strings); empty texts and labels are refused."""
    return [
        Sentences(
            record.where,
            tuple(text_field(record, name) for name in parts.texts),
            text_field(record, parts.label) if parts.label else None,
        )
        for record in records
    ]


def source_targets(records: Iterable[Record], *, targeted: bool = True) -> list[SourceTarget]:
    """Examples for generation: "source" a text, or a list of turns (JSON), or absent; "target".

    Without ``targeted`` targets are not read.
    """
    source, target = "source", "target"
    found = []
    for record in records:
        given = record.fields.get(source)
        if isinstance(given, list):
            for turn in given:
                if not isinstance(turn, str) or not turn.strip():
                    raise DataError(
                        f"{record.where}: a turn of {source!r} is {str(turn)[:60]!r}, not a text; "
                        "give a list of texts"
                    )
            turns = tuple(given)
        elif source in record.fields:
            turns = (text_field(record, source),)
        else:
            turns = ()
        known = target in record.fields
        written = text_field(record, target) if targeted and known else None
        if not known and not turns:
            raise DataError(
                f"{record.where}: neither {source!r} nor {target!r} among "
                f"{', '.join(record.fields)}; name the columns so"
            )
        found.append(SourceTarget(record.where, turns, written))
    return found


def minimal_pairs(records: Iterable[Record]) -> list[MinimalPair]:
    """Pairs in BLiMP's form: sentence_good, sentence_bad, and UID (or set) for the set's name."""
    found = []
    for record in records:
        group = next((record.fields[n] for n in ("UID", "set", "group") if n in record.fields), "")
        good, bad = text_field(record, "sentence_good"), text_field(record, "sentence_bad")
        if str(group) == ALL_PAIRS:
            raise DataError(
                f"{record.where}: a set named {ALL_PAIRS!r}, which is all sets; rename it"
            )
        if good == bad:
            raise DataError(f"{record.where}: the two sentences are equal; a pair must differ")
        found.append(MinimalPair(record.where, good, bad, str(group)))
    return found


def label_names(examples: Sequence[Sentences]) -> tuple[str, ...]:
    """The labels that occur, numbers in numeric order and before words, words by code point."""
    seen = {example.label for example in examples if example.label is not None}

    def order(label: str) -> tuple[bool, float, str]:
        number = _number(label)
        return (number is None, number or 0.0, label)

    return tuple(sorted(seen, key=order))


def label_index(where: str, label: str | None, names: Sequence[str]) -> int:
    """Place of a label in the set; DataError names the line of one outside it."""
    if label is None or label not in names:
        raise DataError(
            f"{where}: label {label!r} is not one of {', '.join(names)}; "
            "mend the line or the label set"
        )
    return list(names).index(label)


def score(where: str, label: str | None) -> float:
    """A regression target; DataError for what is no finite number."""
    number = _number(label or "")
    if number is None or abs(number) > LARGEST_SCORE:
        raise DataError(
            f"{where}: score {label!r} is not a number up to {LARGEST_SCORE:.0e}; mend the line"
        )
    return number


def text_field(record: Record, name: str) -> str:
    """A field that must be there and not blank, without white space around it."""
    if name not in record.fields:
        raise DataError(
            f"{record.where}: no column {name!r} among {', '.join(record.fields)}; "
            "correct the column's name"
        )
    value = record.fields[name]
    if isinstance(value, (dict, list)):
        raise DataError(
            f"{record.where}: {name} is {str(value)[:60]!r}, not a text; mend the record"
        )
    if value is None or not str(value).strip():
        raise DataError(f"{record.where}: {name} is empty; fill it or drop the line")
    return str(value).strip()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None
