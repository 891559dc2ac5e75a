"""Datasets of TensorFlow Datasets and Hugging Face, imported only where they are asked for.

They are written `tfds:NAME[/CONFIG][:SPLIT]` and `hf:[OWNER/]NAME[/CONFIG][:SPLIT]`, for example
"tfds:glue/sst2:validation" or "hf:nyu-mll/glue/sst2:train[:100]". NAME may also be a local folder
that the library itself has written, and the split is "train" by default. TensorFlow is never
imported: TFDS reads through its data source interface, which needs a dataset that was prepared as
array_record.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from albert_jax.data.sources.tables import Record
from albert_jax.errors import ConfigError, DataError

PREFIXES = ("tfds:", "hf:")
_SPEC = re.compile(r"(tfds|hf):(.+?)(?::((?:[^:\[\]/]|\[[^\[\]]*\])+))?")
"""Library, name and split; a colon within brackets belongs to the split."""


def is_hub_dataset(path: str) -> bool:
    """Whether a path names a hub dataset and not a file."""
    return path.startswith(PREFIXES)


def load_records(spec: str) -> list[Record]:
    """All records of a dataset; integer class labels become their names.

    Raises ConfigError for a malformed name or a missing package, DataError for a dataset that the
    package cannot load.
    """
    if spec.startswith("tfds:"):
        builder, split = open_tfds(spec)
        rows, features = _data_source(spec, builder, split), builder.info.features
    else:
        rows = open_hugging_face(spec)
        features = rows.features
    classes = {
        name: list(feature.names)
        for name, feature in features.items()
        if getattr(feature, "names", None)
    }
    records = list(_records(spec, rows, classes))
    if not records:
        raise DataError(f"{spec}: no records; name a split with at least one")
    return records


@lru_cache(maxsize=4)
def open_tfds(spec: str) -> tuple[Any, str]:
    """The builder of a `tfds:` dataset and the name of its split. Raises DataError."""
    import tensorflow_datasets as tfds  # type: ignore[import-untyped]

    name, split = _parse(spec)
    try:
        if os.path.isdir(name):
            builder = tfds.builder_from_directory(name)
        else:
            builder = tfds.builder(name, try_gcs=False)
        splits = list(builder.info.splits)
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(
            f"{spec}: cannot be opened ({_reason(error)}): name a prepared set"
        ) from error
    if not splits:
        raise DataError(
            f"{spec}: is not prepared here: set TFDS_DATA_DIR, or prepare it with "
            f"`tfds build {name} --file_format=array_record`"
        )
    if split.partition("[")[0] not in splits:
        raise DataError(f"{spec}: has no split {split!r}, only {splits}: name one")
    return builder, split


@lru_cache(maxsize=4)
def open_hugging_face(spec: str) -> Any:
    """The `datasets.Dataset` of an `hf:` dataset, loaded once per process.

    Raises ConfigError without the package, DataError for what it cannot load.
    """
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(f"{spec}: needs Hugging Face datasets: pip install datasets") from error
    name, split = _parse(spec)
    try:
        if os.path.isdir(name):
            data = datasets.load_from_disk(name)
            return data[split] if isinstance(data, datasets.DatasetDict) else data
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(f"{spec}: cannot be loaded ({_reason(error)})") from error
    # What stands behind the last slash is a part of the name on the Hub, or a config.
    path, _, config = name.rpartition("/")
    attempts = [(name, None), *([(path, config)] if path else [])]
    for attempt in attempts:
        try:
            return datasets.load_dataset(*attempt, split=split)
        except Exception as error:
            if attempt == attempts[-1]:
                raise DataError(
                    f"{spec}: cannot be loaded ({_reason(error)}): give a set or a saved folder"
                ) from error
    raise AssertionError("there is at least one attempt")


def text(value: object) -> str:
    """A field as text; TFDS gives bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _parse(spec: str) -> tuple[str, str]:
    """Name and split of a dataset."""
    matched = _SPEC.fullmatch(spec)
    if matched is None:
        raise ConfigError(
            f"{spec!r}: write tfds:NAME[/CONFIG][:SPLIT] or hf:[OWNER/]NAME[/CONFIG][:SPLIT]"
        )
    return matched[2], matched[3] or "train"


def _data_source(spec: str, builder: Any, split: str) -> Any:
    try:
        return builder.as_data_source(split=split)
    except Exception as error:  # The library raises errors of all kinds.
        raise DataError(
            f"{spec}: TFDS cannot read it ({_reason(error)}); prepare it with "
            f"`tfds build {builder.name} --file_format=array_record`"
        ) from error


def _records(spec: str, rows: Any, classes: dict[str, list[str]]) -> Iterator[Record]:
    for number, row in enumerate(rows):
        fields: dict[str, object] = {}
        for name, value in row.items():
            if name in classes:
                fields[name] = classes[name][int(value)] if int(value) >= 0 else None
            else:
                fields[name] = value.decode("utf-8") if isinstance(value, bytes) else value
        yield Record(f"{spec} record {number}", fields)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
