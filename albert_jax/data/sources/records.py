"""Texts that are fields of records: JSON Lines, Parquet and TFRecord files.

Each reader yields (place for messages, text) of the records of a part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from albert_jax import files
from albert_jax.data.sources import text_files, tfrecord
from albert_jax.data.sources.document import Part, ReadCounts
from albert_jax.errors import DataError
from albert_jax.protobuf_wire import WireError


def jsonl_texts(part: Part, field: str, skipped: ReadCounts | None) -> Iterator[tuple[str, str]]:
    """Lines that are not UTF-8 are left out and counted in `skipped`; without it they are errors.

    Raises:
      DataError: A line is too long, is not a JSON object, or has no text in the field.
    """
    path, offset = part.path, part.begin
    with text_files.open_stream(path) as stream:
        stream.seek(offset)
        while part.end < 0 or offset < part.end:
            line = stream.readline(text_files.MAX_JSON_LINE)
            if not line:
                return
            begin, offset = offset, offset + len(line)
            if line.isspace():
                continue
            text, problem = None, f"has no text in field {field!r}: fix the line or give --field"
            try:
                text = json.loads(line.decode("utf-8" if begin else "utf-8-sig"))[field]
            except UnicodeDecodeError as error:
                if skipped:
                    skipped.bad_lines += 1
                    continue
                problem = (
                    f"invalid UTF-8 at byte {begin + error.start}: convert the file to UTF-8 or "
                    "give --on-bad-text skip"
                )
            except (ValueError, RecursionError):
                problem = "is not a JSON object: fix the line"
                if len(line) >= text_files.MAX_JSON_LINE:
                    problem = f"longer than {text_files.MAX_JSON_LINE} bytes: divide it"
            except (KeyError, TypeError, IndexError):
                pass
            if not isinstance(text, str):
                raise DataError(f"{path}, line {_line_number(path, begin)}: {problem}")
            yield f"{path}, byte {begin}", text


def _line_number(path: str, offset: int) -> int:
    """The number of the line that begins at a byte, counted again, because only errors need it."""
    number = 1
    with text_files.open_stream(path) as stream:
        while offset and (block := stream.read(min(offset, 1 << 20))):
            number += block.count(b"\n")
            offset -= len(block)
    return number


def parquet_parts(path: str, field: str, part_bytes: int) -> list[Part]:
    """Divides a Parquet file into ranges of row groups.

    Raises:
      DataError: The file is not Parquet, or has no text column of that name.
    """
    file = parquet_file(path)
    schema = file.schema_arrow
    if field not in schema.names:
        raise DataError(f"{path}: has no column {field!r}, only {schema.names}: give --field")
    kind = str(schema.field(field).type)
    if kind not in ("string", "large_string", "string_view"):
        raise DataError(f"{path}: column {field!r} holds {kind}, not text: give --field")
    parts: list[Part] = []
    begin = size = 0
    for i in range(file.num_row_groups):
        size += file.metadata.row_group(i).total_byte_size
        if size >= part_bytes or i + 1 == file.num_row_groups:
            parts.append(Part("parquet", path, begin, i + 1, size))
            begin, size = i + 1, 0
    return parts


def parquet_texts(part: Part, field: str) -> Iterator[tuple[str, str]]:
    """Reads a range of row groups."""
    import pyarrow

    file = parquet_file(part.path)
    for group in range(part.begin, part.end):
        where = f"{part.path}, row group {group}"
        row = 0
        try:
            for batch in file.iter_batches(1024, row_groups=[group], columns=[field]):
                for text in batch.column(0).to_pylist():
                    yield f"{where}, row {row}", decoded_text(text, field, f"{where}, row {row}")
                    row += 1
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: invalid UTF-8 in {field!r}: write the file again") from error
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{where}: is damaged: get the file again") from error


def parquet_file(path: str) -> Any:
    """An opened `pyarrow.parquet.ParquetFile`. Raises DataError if it is not complete."""
    import pyarrow
    import pyarrow.parquet

    with files.storage_errors(path):
        try:
            source = path if not files.is_bucket(path) else text_files.opened_raw(path)
            return pyarrow.parquet.ParquetFile(source, memory_map=True)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{path}: is not a complete Parquet file: get it again") from error


def tfrecord_texts(part: Part, field: str) -> Iterator[tuple[str, str]]:
    """Reads a whole TFRecord file."""
    for number, record in enumerate(tfrecord.records(part.path)):
        where = f"{part.path}, record {number}"
        try:
            values = tfrecord.bytes_feature(record, field)
        except WireError as error:
            raise DataError(f"{where}: is not an Example ({error}): get it again") from error
        yield where, decoded_text(values[0] if values else None, field, where)


def decoded_text(value: object, field: str, where: str) -> str:
    """A field that holds text or UTF-8 bytes. Raises DataError for anything else."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"{where}: invalid UTF-8 at byte {error.start} of {field!r}: fix the record"
            raise DataError(message) from error
    if not isinstance(value, str):
        raise DataError(f"{where}: has no text in field {field!r}: fix the record or give --field")
    return value
