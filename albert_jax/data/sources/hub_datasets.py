"""Datasets of TensorFlow Datasets and Hugging Face, imported only where they are asked for.

They are written `tfds:NAME[/CONFIG][:SPLIT]` and `hf:[OWNER/]NAME[/CONFIG][:SPLIT]`, for example
"tfds:glue/sst2:validation" or "hf:wikimedia/wikipedia/20231101.en:train[:1%]". NAME may also be a
local folder that the library can read, and the split is "train" by default. A dataset is
opened once per process. TensorFlow is never imported: TFDS reads through its data source
interface, which needs a dataset that was prepared as array_record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from albert_jax.data.sources.document import Part
from albert_jax.data.sources.records import decoded_text
from albert_jax.data.sources.tables import Record
from albert_jax.errors import ConfigError, DataError

PREFIXES = ("tfds:", "hf:")
PART_RECORDS = 20_000
"""Most records of a part."""
_SPEC = re.compile(r"(tfds|hf):(?!:)(.+?)(?<!:)(?::((?:[^:\[\]/]|\[[^\[\]]*\])+))?")
"""Library, name and split; a colon within brackets belongs to the split."""


def is_hub_dataset(path: str) -> bool:
    """Whether a path names a hub dataset and not a file."""
    return path.startswith(PREFIXES)


def load_records(spec: str) -> list[Record]:
    """All records of a dataset; integer class labels become their names.

    Raises:
      ConfigError: The name is malformed, or its library is not installed.
      DataError: The library cannot load the dataset, or it has no records.
    """
    if spec.startswith("tfds:"):
        builder, split = open_tfds(spec)
        rows, features = _data_source(spec), builder.info.features
    else:
        rows = open_hugging_face(spec)
        features = rows.features
    classes = {
        name: list(feature.names)
        for name, feature in features.items()
        if getattr(feature, "names", None)
    }
    records = list(_named_records(spec, rows, classes))
    if not records:
        raise DataError(f"{spec}: has no records: name a split with at least one")
    return records


def _named_records(
    spec: str, rows: Iterable[dict[str, Any]], classes: dict[str, list[str]]
) -> Iterator[Record]:
    for number, row in enumerate(rows):
        fields: dict[str, object] = {}
        for name, value in row.items():
            if name in classes:
                fields[name] = classes[name][int(value)] if int(value) >= 0 else None
            else:
                fields[name] = value.decode("utf-8") if isinstance(value, bytes) else value
        yield Record(f"{spec} record {number}", fields)


def text(value: object) -> str:
    """A field as text, because TFDS gives bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def text_parts(spec: str, field: str, part_bytes: int) -> list[Part]:
    """Divides a dataset into runs of records, or a TFDS dataset of TFRecords into its files.

    Raises:
      ConfigError: The name is malformed, or its library is not installed.
      DataError: The library cannot load the dataset, or it has no such field.
    """
    if spec.startswith("hf:"):
        data = open_hugging_face(spec)
        if field not in data.column_names:
            raise DataError(
                f"{spec}: has no column {field!r}, only {data.column_names}: give --field"
            )
        return _runs("hf", spec, len(data), data.data.nbytes, part_bytes)
    builder, split = open_tfds(spec)
    info = builder.info.splits[split]
    if builder.info.file_format.value == "array_record":
        return _runs("tfds", spec, info.num_examples, info.num_bytes, part_bytes)
    if "[" in split:
        raise DataError(f"{spec}: a slice needs array_record files: name the split {info.name!r}")
    weight = max(1, info.num_bytes // len(info.filepaths))
    return [Part("tfrecord", str(path), 0, -1, weight) for path in info.filepaths]


def _runs(kind: str, spec: str, count: int, num_bytes: int, part_bytes: int) -> list[Part]:
    size = max(1, num_bytes // max(count, 1))
    step = max(1, min(PART_RECORDS, part_bytes // size))
    runs = ((begin, min(begin + step, count)) for begin in range(0, count, step))
    return [Part(kind, spec, begin, end, (end - begin) * size) for begin, end in runs]


def texts(part: Part, field: str) -> Iterator[tuple[str, str]]:
    """Yields (place for messages, text) of each record of a part."""
    spec = part.path
    if part.kind == "tfds":
        source = _data_source(spec)
        for number in range(part.begin, part.end):
            where = f"{spec}, record {number}"
            record = source[number]
            value = record.get(field) if isinstance(record, dict) else None
            yield where, decoded_text(value, field, where)
        return
    data = open_hugging_face(spec)
    for first in range(part.begin, part.end, 1000):
        rows = data[first : min(first + 1000, part.end)][field]
        for number, value in enumerate(rows, first):
            where = f"{spec}, row {number}"
            yield where, decoded_text(value, field, where)


@lru_cache(maxsize=4)
def open_tfds(spec: str) -> tuple[Any, str]:
    """The builder of a `tfds:` dataset and the name of its split.

    Raises:
      ConfigError: The name is malformed, or TFDS is not installed.
      DataError: There is no such dataset or split.
    """
    name, split = _parse(spec)
    try:
        import tensorflow_datasets as tfds  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            f"{spec}: needs TensorFlow Datasets: pip install 'albert-jax[tfds]'"
        ) from error
    try:
        if os.path.isdir(name):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, try_gcs=False)
        splits = list(builder.info.splits)
        if split.partition("[")[0] in splits:
            _ = builder.info.splits[split]  # A malformed slice is an error here.
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(
            f"{spec}: cannot be opened ({_reason(error)}): name a prepared dataset"
        ) from error
    if not splits:
        raise DataError(
            f"{spec}: is not prepared here: set TFDS_DATA_DIR, or prepare it with "
            f"`tfds build {name} --file_format=array_record`"
        )
    if split.partition("[")[0] not in splits:
        raise DataError(f"{spec}: has no split {split!r}, only {splits}: name one of them")
    return builder, split


def open_hugging_face(spec: str) -> Any:
    """The `datasets.Dataset` of an `hf:` dataset.

    Raises:
      ConfigError: The name is malformed, or the library is not installed.
      DataError: The library cannot load the dataset.
    """
    name, split = _parse(spec)
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(f"{spec}: needs Hugging Face datasets: pip install datasets") from error
    try:
        if os.path.isdir(name):
            try:
                return _load_saved(datasets.load_from_disk, name, split)
            except FileNotFoundError:  # The folder holds data files, which the library reads too.
                pass
        return _load_from_hub(datasets.load_dataset, name, split)
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(
            f"{spec}: cannot be loaded ({_reason(error)}): name a dataset or a saved folder"
        ) from error


@lru_cache(maxsize=4)
def _load_saved(load_from_disk: Callable[[str], Any], folder: str, split: str) -> Any:
    data = load_from_disk(folder)
    return data[split] if isinstance(data, dict) else data


@lru_cache(maxsize=4)
def _load_from_hub(load_dataset: Callable[..., Any], name: str, split: str) -> Any:
    """The part after the last slash is the end of the dataset's name, or names a config."""
    path, _, config = name.rpartition("/")
    try:
        return load_dataset(name, None, split=split)
    except Exception as first:
        if not path:
            raise
        try:
            return load_dataset(path, config, split=split)
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


@lru_cache(maxsize=4)
def _data_source(spec: str) -> Any:
    builder, split = open_tfds(spec)
    try:
        return builder.as_data_source(split=split)
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(
            f"{spec}: TFDS cannot read it ({_reason(error)}): prepare it with "
            f"`tfds build {builder.name} --file_format=array_record`"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
