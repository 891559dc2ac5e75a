"""Documents that are records of a file or a named data set: JSONL, Parquet, TFDS, Hugging Face."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from albert_jax.data.sources import text_files
from albert_jax.errors import ConfigError, DataError

Row = tuple[str, str, int, int, int]
"""kind, path, begin, end, weight of a `sources.Part`."""


def texts(
    kind: str, path: str, begin: int, end: int, field: str, skipped: text_files.Tally | None = None
) -> Iterator[tuple[str, str]]:
    """(place for messages, text) of each record of a part. Lines of JSON that are no UTF-8 are
    left out and counted in `skipped`; without it they are errors."""
    if kind == "jsonl":
        return _jsonl(path, begin, end, field, skipped)
    if kind in ("tfds", "tfrecord"):
        from albert_jax.data.sources import tfds_sets

        read = tfds_sets.texts if kind == "tfds" else tfds_sets.file_texts
    else:
        read = {"parquet": _parquet, "hf": _hugging_face}[kind]
    return read(path, begin, end, field)


def set_parts(spec: str, field: str, part_bytes: int) -> list[Row]:
    """Parts of a named data set (``tfds:`` or ``hf:``)."""
    if spec.startswith("tfds:"):
        from albert_jax.data.sources import tfds_sets

        return tfds_sets.parts(spec, part_bytes)
    data = _hugging_face_set(spec)
    if field not in data.column_names:
        raise DataError(f"{spec}: has no column {field!r}, only {data.column_names}: give --field")
    size = max(1, data.data.nbytes // max(len(data), 1))
    step = max(1, min(20_000, part_bytes // size))
    runs = ((begin, min(begin + step, len(data))) for begin in range(0, len(data), step))
    return [("hf", spec, begin, end, (end - begin) * size) for begin, end in runs]


def parquet_parts(path: str, field: str, part_bytes: int) -> list[tuple[int, int, int]]:
    """(first, last + 1, bytes) of runs of row groups.

    Raises:
      DataError: no Parquet file, or no column of text of that name.
    """
    file = _parquet_file(path)
    schema = file.schema_arrow
    if field not in schema.names:
        raise DataError(f"{path}: has no column {field!r}, only {schema.names}: give --field")
    kind = str(schema.field(field).type)
    if kind not in ("string", "large_string", "string_view"):
        raise DataError(f"{path}: column {field!r} holds {kind}, not text: give --field")
    found: list[tuple[int, int, int]] = []
    begin = size = 0
    for i in range(file.num_row_groups):
        size += file.metadata.row_group(i).total_byte_size
        if size >= part_bytes or i + 1 == file.num_row_groups:
            found.append((begin, i + 1, size))
            begin, size = i + 1, 0
    return found


def _jsonl(
    path: str, begin: int, end: int, field: str, skipped: text_files.Tally | None
) -> Iterator[tuple[str, str]]:
    offset = begin
    with text_files.opened(path) as stream:
        if begin:
            stream.seek(begin)
        while end < 0 or offset < end:
            line = stream.readline(text_files.MAX_RECORD)
            if not line:
                return
            if len(line) >= text_files.MAX_RECORD:
                raise DataError(
                    f"{path}, line {_line(path, offset)}: longer than {text_files.MAX_RECORD} "
                    "bytes: divide it"
                )
            if not line.isspace():
                try:
                    text = json.loads(line.decode("utf-8-sig" if not offset else "utf-8"))[field]
                    if not isinstance(text, str):
                        raise TypeError
                except UnicodeDecodeError as error:
                    if skipped is None:
                        raise DataError(
                            f"{path}: invalid UTF-8 at byte {offset + error.start} (line "
                            f"{_line(path, offset)}): convert the file to UTF-8 or give "
                            "--on-bad-text skip"
                        ) from error
                    skipped.bad_lines += 1
                    offset += len(line)
                    continue
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"{path}, line {_line(path, offset)}: is no JSON object: mend the line"
                    ) from error
                except (KeyError, TypeError, IndexError) as error:
                    raise DataError(
                        f"{path}, line {_line(path, offset)}: has no text in field {field!r}: "
                        "mend the line or give --field"
                    ) from error
                yield f"{path}, byte {offset}", text
            offset += len(line)


def _line(path: str, offset: int) -> int:
    """Number of the line that begins at a byte; read again, as only an error asks for it."""
    count, left = 1, offset
    with text_files.opened(path) as stream:
        while left and (block := stream.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
    return count


def _parquet_file(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    from albert_jax import files

    try:
        if files.is_bucket(path):
            import fsspec

            return pyarrow.parquet.ParquetFile(fsspec.open(path, "rb").open())  # type: ignore[attr-defined]
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: is no whole Parquet file: get it again") from error
    except OSError as error:
        raise files.storage_error(path, error) from error


def _parquet(path: str, begin: int, end: int, field: str) -> Iterator[tuple[str, str]]:
    import pyarrow

    file = _parquet_file(path)
    for group in range(begin, end):
        row = 0
        try:
            for batch in file.iter_batches(1024, row_groups=[group], columns=[field]):
                for text in batch.column(0).to_pylist():
                    if text is None:
                        raise DataError(
                            f"{path}, row group {group}, row {row}: {field!r} is null: mend it"
                        )
                    yield f"{path}, row group {group}, row {row}", text
                    row += 1
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}, row group {group}: is damaged: get the file again") from error


def _hugging_face_set(spec: str) -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(f"{spec}: needs Hugging Face datasets: pip install datasets") from error
    name, _, split = spec.removeprefix("hf:").partition(":")
    try:
        if os.path.isdir(name):
            data = datasets.load_from_disk(name)
            return data[split or "train"] if isinstance(data, datasets.DatasetDict) else data
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # noqa: BLE001 - the library raises errors of all kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{spec}: cannot be loaded ({reason}): give a set or a saved folder"
        ) from error


def _hugging_face(path: str, begin: int, end: int, field: str) -> Iterator[tuple[str, str]]:
    data = _hugging_face_set(path)
    for first in range(begin, end, 1000):
        rows = data[first : min(first + 1000, end)][field]
        for row, text in enumerate(rows, first):
            if not isinstance(text, str):
                raise DataError(f"{path}, row {row}: has no text in column {field!r}: give --field")
            yield f"{path}, row {row}", text
