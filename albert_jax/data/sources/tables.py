"""Labeled tables: TSV, CSV and JSON lines, read as records of named fields.

Every complaint names file and line.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_jax import files
from albert_jax.errors import DataError

IGNORED = "-"
"""Name of a column that is read and dropped."""
SUFFIXES = (".tsv", ".txt", ".csv", ".jsonl", ".json")
"""Files that are read as tables."""
MAX_FIELD_CHARACTERS = 1 << 30
"""Limit of a CSV field; Python's own limit is shorter than a long text."""


@dataclass(frozen=True)
class Record:
    """One line of a table: its place, and its fields by name."""

    where: str
    fields: Mapping[str, object]
    repeated: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Names that stand in the header more than once, and so do not tell which column is meant,
    with the place of the header."""


def read_text(path: str | Path) -> str:
    """A whole UTF-8 file without byte order mark; DataError names the line of invalid bytes."""
    raw = files.read(str(path), stream=True)
    if raw is None:
        raise DataError(f"{path}: no such file; check the path")
    return decode(raw, path)


def decode(raw: bytes, place: str | Path, first_line: int = 1) -> str:
    """UTF-8 bytes as text without byte order mark; DataError names the line of invalid bytes."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + first_line
        fix = "convert it to UTF-8"
        if _is_gb18030(raw):
            fix = f"it looks like Chinese in GB18030 (GBK): iconv -f GB18030 -t UTF-8 {place} > NEW"
        raise DataError(f"{place}:{line}: not UTF-8; {fix}") from error


def _is_gb18030(raw: bytes) -> bool:
    """Returns whether bytes can be GB18030: nearly all that is not ASCII is Han.

    Other one-byte text (Latin-1, Cyrillic) seldom decodes, or to a mixture.
    """
    with contextlib.suppress(UnicodeDecodeError):
        characters = [c for c in raw.decode("gb18030") if not c.isascii()]
        han = sum("\u4e00" <= c <= "\u9fff" or "\u3000" <= c <= "\u303f" for c in characters)
        full_width = sum("\uff00" <= c <= "\uffef" for c in characters)
        return len(characters) > 3 and han + full_width > 0.9 * len(characters)
    return False


def parse_json(text: str, path: str | Path, line: int, fix: str) -> Any:
    """The value of a JSON text that begins on a line of a file.

    Raises DataError, which ends with `fix`, for invalid JSON, and for half a surrogate pair,
    which no text can hold.
    """
    try:
        value = json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}"
        raise DataError(f"{where}: not JSON ({error.msg}); {fix}") from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}:{line}: half of a surrogate pair, such as \\ud83d alone; fix the text"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; [[[[...
        raise DataError(f"{path}:{line}: not readable ({str(error)[:60]}); {fix}") from error
    return value


def read_records(path: str | Path, columns: Sequence[str] = ()) -> list[Record]:
    """Records of a `.tsv`, `.txt`, `.csv`, `.jsonl` or `.json` table.

    `columns` names the columns of a file without a header, in order. If the first line holds some
    of these names it is a header, and then it must hold all of them; without `columns` the first
    line is the header. Tabs are never quoted (as in GLUE), commas are (RFC 4180). Blank lines are
    skipped, except where rows have one column: there they may be a row.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".json"):
        records = list(json_lines(path, columns))
    elif suffix in (".tsv", ".txt", ".csv"):
        records = list(_table(path, columns, _comma_rows if suffix == ".csv" else _tab_rows))
    elif files.is_folder(str(path)):
        inside = [name for name in files.names(str(path)) if Path(name).suffix in SUFFIXES]
        example = f", for example {files.join(str(path), sorted(inside)[0])}" if inside else ""
        raise DataError(f"{path}: it is a folder; name a file in it{example}")
    else:
        raise DataError(f"{path}: unknown format {suffix!r}; give .tsv, .txt, .csv or .jsonl")
    if not records:
        raise DataError(f"{path}: no records; give a file with at least one")
    return records


def text_field(record: Record, name: str) -> str:
    """A field that must be present and not blank, without white space around it."""
    value = field(record, name)
    if isinstance(value, (dict, list)):
        raise DataError(
            f"{record.where}: {name} is {str(value)[:60]!r}, not a text; fix the record"
        )
    if value is None or not str(value).strip():
        raise DataError(f"{record.where}: {name} is empty; fill it or drop the line")
    return str(value).strip()


def field(record: Record, name: str) -> object:
    """A field that must be present; DataError if it is missing or its column is ambiguous."""
    if name in record.repeated:
        raise DataError(
            f"{record.repeated[name]}: column {name!r} appears twice in the header; name all "
            f"columns with --columns, and the one to ignore {IGNORED!r}"
        )
    if name not in record.fields:
        raise DataError(
            f"{record.where}: no column {name!r} among {', '.join(record.fields)}; "
            "correct the column's name"
        )
    return record.fields[name]


def _table(path: str | Path, columns: Sequence[str], read_rows: Any) -> Iterator[Record]:
    named = [name for name in columns if name != IGNORED]
    for name in named:
        if named.count(name) > 1:
            raise DataError(f"--columns: column {name!r} appears twice; use {IGNORED!r} to ignore")
    names: list[str] | None = None
    repeated: dict[str, str] = {}
    blank = 0
    for line, row in read_rows(path):
        if not row:
            blank = blank or line
            continue
        if names is None:
            if not columns and not "".join(row).strip():
                continue
            blank = 0 if not columns or set(named) & set(row) else blank
            names = _header(row, columns, f"{path}:{line}")
            if names and len(names) == 1 and ";" in names[0] and read_rows is _comma_rows:
                raise DataError(
                    f"{path}:{line}: a single column {names[0][:60]!r}: separate the columns with "
                    "commas, or save them with tabs as a .tsv"
                )
            if names is not None:
                repeated = {n: f"{path}:{line}" for n in names if names.count(n) > 1}
                continue
            names = list(columns)
        if blank and len(names) == 1:
            raise DataError(f"{path}:{blank}: {names[0]} is empty; fill it or drop the line")
        blank = 0
        if len(row) != len(names):
            raise DataError(
                f"{path}:{line}: {len(row)} columns where {len(names)} are expected "
                f"({', '.join(names)}); fix the line or --columns"
            )
        yield Record(f"{path}:{line}", dict(zip(names, row, strict=True)), repeated)


def _header(row: list[str], columns: Sequence[str], where: str) -> list[str] | None:
    """The names of the columns if `row` is a header; None if it is the first row of data."""
    if not columns:
        return row
    named = [name for name in columns if name != IGNORED]
    if not set(named) & set(row):
        return None
    missing = [name for name in named if name not in row]
    if missing:
        raise DataError(
            f"{where}: no column {missing[0]!r} among {', '.join(row)}; "
            "correct --columns or the header"
        )
    same = len(columns) == len(row) and all(
        name in (IGNORED, given) for name, given in zip(columns, row, strict=True)
    )
    return list(columns) if same else row


def _tab_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if "\t" in line or line.strip() else []


def _comma_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    # Not splitlines(): texts may hold U+2028 and other separators that do not end a CSV line.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    start = 1
    try:
        for row in reader:
            spaces = len(row) == 1 and row[0].isspace()
            yield start, [] if spaces else row
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: broken CSV ({error}); fix the quotes") from error


def json_lines(path: str | Path, columns: Sequence[str] = ()) -> Iterator[Record]:
    """Records of a file with one JSON object per line, which must have all `columns`."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        fields = parse_json(line, path, number, "give one object per line")
        if not isinstance(fields, dict):
            raise DataError(f"{where}: not a JSON object; give one object per line")
        for name in columns:
            if name != IGNORED and name not in fields:
                raise DataError(
                    f"{where}: no column {name!r} among {', '.join(fields)}; correct --columns"
                )
        yield Record(where, fields)


def require(holder: Any, name: str, where: str, kind: type = object) -> Any:
    """The value of a key; DataError, which names `where`, if it is missing or of another type."""
    if not isinstance(holder, dict) or name not in holder:
        raise DataError(f"{where}: no {name!r}; add it")
    value = holder[name]
    if not isinstance(value, kind):
        names = {str: "a text", int: "a whole number", list: "a list"}
        raise DataError(f"{where}: {name} is {str(value)[:60]!r}, not {names[kind]}; fix it")
    return value
