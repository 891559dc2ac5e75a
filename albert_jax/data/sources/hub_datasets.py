"""Datasets of TensorFlow Datasets and Hugging Face, whose libraries are imported when needed.

They are written `tfds:NAME[/CONFIG][:SPLIT]` and `hf:[OWNER/]NAME[/CONFIG][:SPLIT]`, for example
"tfds:glue/sst2:validation" or "hf:wikimedia/wikipedia/20231101.en:train[:1%]". NAME may also be a
local folder that the library can read, and the split is "train" by default. A dataset is
opened once per process. TensorFlow is never imported: array_record files are read through TFDS's
data source interface, and text in TFRecord files by tfrecord.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from albert_jax.data.sources.document import Part, record_parts
from albert_jax.data.sources.records import decoded_text
from albert_jax.data.sources.tables import Record
from albert_jax.errors import ConfigError, DataError

PREFIXES = ("tfds:", "hf:")
PART_RECORDS = 20_000
"""Most records of a part."""
_SPEC = re.compile(r"(tfds|hf):(?!:)(.+?)(?<!:)(?::((?:[^:\[\]/]|\[[^\[\]]*\])+))?")
"""Library, name and split; a colon within brackets belongs to the split."""


def is_hub_dataset(path: str) -> bool:
    """Returns whether a path names a hub dataset and not a file."""
    return path.startswith(PREFIXES)


def load_records(spec: str) -> list[Record]:
    """All records of a dataset; integer class labels become their names.

    Raises:
      ConfigError: The name is malformed, or its library is not installed.
      DataError: The library cannot load the dataset, or it has no records.
    """
    if spec.startswith("tfds:"):
        rows, features = _tfds_rows(spec), _open_tfds(spec)[0].info.features
    else:
        rows = _open_hugging_face(spec)
        features = rows.features
    classes = {name: getattr(feature, "names", None) for name, feature in features.items()}
    records = [
        Record(
            f"{spec} record {number}",
            {
                name: _plain(value, classes.get(name), name, f"{spec} record {number}")
                for name, value in row.items()
            },
        )
        for number, row in enumerate(rows)
    ]
    if not records:
        raise DataError(f"{spec}: has no records: name a split with at least one")
    return records


def _plain(value: Any, class_names: list[str] | None, field: str, where: str) -> Any:
    """A field as JSON has it: TFDS gives arrays and bytes, and classes are numbers."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return decoded_text(value, field, where)
    if isinstance(value, dict):
        return {name: _plain(inner, None, name, where) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, class_names, field, where) for inner in value]
    if class_names and isinstance(value, int):
        return class_names[value] if value >= 0 else None
    return value


def text_parts(spec: str, field: str, part_bytes: int) -> list[Part]:
    """Divides a dataset into ranges of records, or a TFDS dataset of TFRecords into its files.

    Raises:
      ConfigError: The name is malformed, or its library is not installed.
      DataError: The library cannot load the dataset, or it has no such field.
    """
    if spec.startswith("hf:"):
        data = _open_hugging_face(spec)
        if field not in data.column_names:
            raise DataError(
                f"{spec}: has no column {field!r}, only {data.column_names}: give --field"
            )
        return record_parts("hf", spec, len(data), data.data.nbytes, PART_RECORDS, part_bytes)
    builder, split = _open_tfds(spec)
    info = builder.info.splits[split]
    if builder.info.file_format.value == "array_record":
        count, size = info.num_examples, info.num_bytes
        return record_parts("tfds", spec, count, size, PART_RECORDS, part_bytes)
    if "[" in split:
        raise DataError(f"{spec}: a slice needs array_record files: name the split {info.name!r}")
    weight = max(1, info.num_bytes // len(info.filepaths))
    return [Part("tfrecord", str(path), 0, -1, weight) for path in info.filepaths]


def texts(part: Part, field: str) -> Iterator[tuple[str, str]]:
    """Yields (place for messages, text) of each record of a part."""
    if part.kind == "tfds":
        rows = _tfds_rows(part.path)
        values = (rows[number].get(field) for number in range(part.begin, part.end))
    else:
        data = _open_hugging_face(part.path)
        firsts = range(part.begin, part.end, 1000)
        values = (v for first in firsts for v in data[first : min(first + 1000, part.end)][field])
    for number, value in enumerate(values, part.begin):
        where = f"{part.path}, record {number}"
        yield where, decoded_text(value, field, where)


@lru_cache(maxsize=4)
def _open_tfds(spec: str) -> tuple[Any, str]:
    """The builder of a `tfds:` dataset and the name of its split."""
    name, split = _parse(spec)
    try:
        import tensorflow_datasets as tfds  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{spec}: needs TensorFlow Datasets: pip install -e '.[tfds]' in the checkout, or "
            "pip install tensorflow-datasets"
        ) from error
    with _library_errors(spec, "name a prepared dataset"):
        if os.path.isdir(name):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, try_gcs=False)
        splits = list(builder.info.splits)
        known = split.partition("[")[0] in splits
        if known:
            _ = builder.info.splits[split]  # A malformed slice is an error here.
    if not splits:
        raise DataError(
            f"{spec}: is not prepared here: set TFDS_DATA_DIR, or prepare it with "
            f"`tfds build {name} --file_format=array_record`"
        )
    if not known:
        raise DataError(f"{spec}: has no split {split!r}, only {splits}: name one of them")
    return builder, split


@lru_cache(maxsize=4)
def _tfds_rows(spec: str) -> Any:
    builder, split = _open_tfds(spec)
    with _library_errors(spec, f"run `tfds build {builder.name} --file_format=array_record`"):
        return builder.as_data_source(split=split)


def _open_hugging_face(spec: str) -> Any:
    name, split = _parse(spec)
    try:
        import datasets  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{spec}: needs Hugging Face datasets: pip install datasets") from error
    with _library_errors(spec, "name a dataset or a saved folder"):
        return _load_hugging_face(name, split)


@lru_cache(maxsize=4)
def _load_hugging_face(name: str, split: str) -> Any:
    import datasets  # type: ignore[import-not-found]

    if os.path.isdir(name):
        try:
            data = datasets.load_from_disk(name)
        except FileNotFoundError:  # The folder holds data files, which the library reads too.
            data = None
        if isinstance(data, dict):
            return data[split]
        if data is not None and split != "train":
            raise ValueError("the folder holds one dataset without splits: leave :SPLIT out")
        if data is not None:
            return data
    # The part after the last slash is the end of the dataset's name, or names a config.
    path, _, config = name.rpartition("/")
    try:
        return datasets.load_dataset(name, None, split=split)
    except Exception as first:
        if not path:
            raise
        try:
            return datasets.load_dataset(path, config, split=split)
        except Exception as second:
            # OWNER/NAME is the usual meaning of one slash, and OWNER/NAME/CONFIG of two.
            raise (second if "/" in path else first) from None


def _parse(spec: str) -> tuple[str, str]:
    """Name and split of a dataset."""
    matched = _SPEC.fullmatch(spec)
    if matched is None:
        raise ConfigError(
            f"{spec!r}: write tfds:NAME[/CONFIG][:SPLIT] or hf:[OWNER/]NAME[/CONFIG][:SPLIT]"
        )
    return matched[2], matched[3] or "train"


@contextmanager
def _library_errors(spec: str, fix: str) -> Iterator[None]:
    """Turns the errors of a library, which are of all kinds, into one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{spec}: cannot be loaded ({reason}): {fix}") from error
