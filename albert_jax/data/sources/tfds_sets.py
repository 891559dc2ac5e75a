"""TensorFlow Datasets read without TensorFlow: `tfds:NAME[:SPLIT]`.

Sets that lie in the ArrayRecord format are read at random by the library; sets that exist as
TFRecord file by file with our reader. NAME is a set that was prepared under TFDS_DATA_DIR (or
the library's default folder), or the folder of one version of a set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from albert_jax.data.sources import tfrecord
from albert_jax.errors import DataError

RECORDS = 20_000
"""Records of a part."""

Row = tuple[str, str, int, int, int]


def parts(spec: str, part_bytes: int) -> list[Row]:
    """Parts of a set: runs of records, or whole TFRecord files.

    Raises:
      DataError: no such set, or no such split.
    """
    builder, split = _builder(spec)
    info = builder.info.splits[split]
    size = max(1, info.num_bytes // max(info.num_examples, 1))
    if builder.info.file_format.value == "array_record":
        step = max(1, min(RECORDS, part_bytes // size))
        count = info.num_examples
        runs = [(begin, min(begin + step, count)) for begin in range(0, count, step)]
        return [("tfds", spec, begin, end, (end - begin) * size) for begin, end in runs]
    weight = max(1, info.num_bytes // len(info.filepaths))
    return [("tfrecord", str(path), 0, -1, weight) for path in info.filepaths]


def texts(spec: str, begin: int, end: int, field: str) -> Iterator[tuple[str, str]]:
    """(place, text) of a run of records of an ArrayRecord set."""
    builder, split = _builder(spec)
    source = builder.as_data_source(split=split)
    for number in range(begin, end):
        record = source[number]
        value = record.get(field) if isinstance(record, dict) else None
        yield f"{spec}, record {number}", _text(value, field, f"{spec}, record {number}")


def file_texts(path: str, begin: int, end: int, field: str) -> Iterator[tuple[str, str]]:
    """(place, text) of the records of a TFRecord file."""
    del begin, end  # such a file can only be read from its start
    for number, record in enumerate(tfrecord.records(path)):
        where = f"{path}, record {number}"
        try:
            values = tfrecord.bytes_feature(record, field)
        except ValueError as error:
            raise DataError(f"{where}: is no Example ({error}): get the file again") from error
        yield where, _text(values[0] if values else None, field, where)


@lru_cache(maxsize=4)
def _builder(spec: str) -> tuple[Any, str]:
    import tensorflow_datasets as tfds

    name, _, split = spec.removeprefix("tfds:").partition(":")
    try:
        if os.path.isdir(name):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, try_gcs=False)
        splits = list(builder.info.splits)
    except Exception as error:  # noqa: BLE001 - the library raises errors of all kinds
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{spec}: cannot be opened ({reason}): name a prepared set") from error
    if not splits:
        raise DataError(f"{spec}: is not prepared here: prepare it with tfds, or set TFDS_DATA_DIR")
    split = split or "train"
    if split not in splits:
        raise DataError(f"{spec}: has no split {split!r}, only {splits}: name one")
    return builder, split


def _text(value: Any, field: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise DataError(f"{where}: has no text in feature {field!r}: give --field")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: invalid UTF-8 at byte {error.start} of {field!r}") from error
