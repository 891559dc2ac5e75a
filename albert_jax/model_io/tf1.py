"""TF1 checkpoints (Saver V2) of google-research/albert, read without TensorFlow.

PREFIX.index is a sorted table. Its empty key holds a header (number of shards, byte order), and
the name of each variable its type, shape, shard, byte range and masked CRC-32C. The bytes are in
PREFIX.data-i-of-n. Every checksum is verified.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.errors import CheckpointError
from albert_jax.files import storage_errors
from albert_jax.files.json_files import read_json
from albert_jax.model_io import published_models, tf1_index
from albert_jax.model_io.foreign_parameters import (
    ORIGINAL,
    from_foreign,
    model_config_from,
    read_with_noted_sharing,
)
from albert_jax.model_io.parameter_names import Params
from albert_jax.model_io.weights import LazyTensors, Weights, to_float32
from albert_jax.protobuf_wire import WireError, fields

CONFIG_NAME = "albert_config.json"
INDEX_LIMIT = 16 << 20
_DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}
"""Types of TensorFlow that weights and counters have, by their code."""
_ACTIVATIONS = {
    "gelu": "gelu_new",  # The original's gelu is the tanh form.
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}


def read(source: Path, config_file: Path | None = None) -> Weights:
    """Reads the weights of a checkpoint, which is named as in `find`.

    Raises CheckpointError if anything is missing, damaged or not an ALBERT.
    """
    prefix = find(source)
    raw_path = config_file or prefix.with_name(CONFIG_NAME)
    variables = read_variables(prefix)
    kind = published_models.relative(variables)
    if kind:
        raise CheckpointError(f"{prefix} is a {kind} checkpoint, not ALBERT: import an ALBERT")
    raw = read_json(raw_path)
    grouped = read_config(raw, str(raw_path))

    def read_as(config: ModelConfig) -> Params:
        return from_original(variables, config, str(prefix))

    config, params = read_with_noted_sharing(raw, grouped, read_as) or (grouped, read_as(grouped))
    return Weights(
        config=config,
        params=to_float32(params, str(prefix)),
        format="tf1",
        stored=variables,
        foreign_config=raw,
    )


def read_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """The ModelConfig of an albert_config.json; keys that the network does not read are ignored."""
    act = raw.get("hidden_act", "gelu") or "linear"
    if act not in _ACTIVATIONS:
        raise CheckpointError(
            f"{where}: hidden_act {act!r} is unknown; the original has {', '.join(_ACTIVATIONS)}"
        )
    return model_config_from(raw, _ACTIVATIONS[act], where)


def from_original(values: Mapping[str, Any], config: ModelConfig, where: str = "weights") -> Params:
    """Variables of the original as our parameters, in the types in which they are stored.

    Optimizer slots (adam_m, adam_v) and global_step are ignored, and the prefix ``module/`` of
    TF-Hub is understood. Raises CheckpointError as `from_foreign`.
    """
    names = {
        name.removeprefix("module/"): name
        for name in values
        if name != "global_step" and not name.endswith(("/adam_m", "/adam_v"))
    }
    return from_foreign(LazyTensors(names, values.__getitem__), config, ORIGINAL, where)


@dataclass(frozen=True)
class Entry:
    """Where one variable is stored."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


def find(source: Path) -> Path:
    """The prefix of the checkpoint meant by a prefix, one of its files, or its folder.

    Raises CheckpointError if there is no index file, or if there are several.
    """
    path = source
    if path.is_dir():
        indexes = sorted(path.glob("*.index"))
        if len(indexes) != 1:
            raise CheckpointError(
                f"{path} holds {len(indexes)} .index files: name one checkpoint by its prefix"
            )
        path = indexes[0]
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise CheckpointError(
            f"{index}: no such file: a TF1 checkpoint is PREFIX.index with PREFIX.data-...; give "
            "the prefix"
        )
    return prefix


def read_variables(source: Path) -> LazyTensors:
    """The numeric variables of a checkpoint, whose index is verified and whose shards are there.

    Raises CheckpointError naming the file, and the variable where one is at fault.
    """
    prefix = find(source)
    index = prefix.with_name(prefix.name + ".index")
    with storage_errors(str(index)):
        if index.stat().st_size > INDEX_LIMIT:
            raise CheckpointError(f"{index} is larger than {INDEX_LIMIT} bytes: it is no index")
        data = index.read_bytes()
    entries: dict[str, Entry] = {}
    try:
        table = tf1_index.parse(data)
        num_shards = _header(table.pop(b"", None))
        for key, value in table.items():
            name = key.decode("utf-8")
            if name == "_CHECKPOINTABLE_OBJECT_GRAPH":
                raise CheckpointError(
                    f"{index} is a TF2 object checkpoint, not one of the original ALBERT: load it "
                    "with its own program and save its weights for Hugging Face"
                )
            entry = _entry(name, value, num_shards)
            if entry is not None:
                entries[name] = entry
    except (WireError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index}: {error}: copy the checkpoint again") from None
    paths = [_shard_path(prefix, shard, num_shards) for shard in range(num_shards)]
    for shard, path in enumerate(paths):
        _check_shard(path, [entry for entry in entries.values() if entry.shard == shard])
    return LazyTensors(entries, lambda entry: _read_entry(paths[entry.shard], entry))


def _read_entry(path: Path, entry: Entry) -> np.ndarray:
    with storage_errors(str(path)), path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.size)
    if len(data) != entry.size:
        raise CheckpointError(f"{path}: truncated inside {entry.name}: copy the checkpoint again")
    if masked_crc32c(data) != entry.checksum:
        raise CheckpointError(
            f"{path}: the checksum of {entry.name} is wrong: copy the checkpoint again"
        )
    return np.frombuffer(data, _DTYPES[entry.dtype]).reshape(entry.shape)


def _check_shard(path: Path, entries: list[Entry]) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: this part of the checkpoint is missing: copy it too")
    size = path.stat().st_size
    for entry in entries:
        if entry.offset + entry.size > size:
            raise CheckpointError(
                f"{path} has {size} bytes but {entry.name} ends at {entry.offset + entry.size}: "
                "it is truncated; copy the checkpoint again"
            )


def _shard_path(prefix: Path, shard: int, num_shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{num_shards:05d}")


def _header(data: bytes | None) -> int:
    """The number of shards in the header entry."""
    if data is None:
        raise WireError("it has no header entry")
    header = dict(fields(data))
    num_shards = header.get(1, 0)
    if not isinstance(num_shards, int) or not 1 <= num_shards <= 4096:
        raise WireError(f"its header claims {num_shards!r} shards")
    if header.get(2, 0):
        raise WireError("its data are big-endian, which is not supported")
    return num_shards


def _entry(name: str, data: bytes, num_shards: int) -> Entry | None:
    """The parsed entry, or None for types that hold no weights (strings)."""
    shape: list[int] = []
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    checksum = 0
    for number, value in fields(data):
        if number == 2 and isinstance(value, bytes):
            for kind, dim in fields(value):
                if kind == 2 and isinstance(dim, bytes):
                    shape.append(int(dict(fields(dim)).get(1, 0)))
        elif number == 6 and isinstance(value, bytes):
            (checksum,) = struct.unpack("<I", value)
        elif number == 7:
            raise WireError(f"{name} is stored in slices, which is not supported")
        elif number in numbers and isinstance(value, int):
            numbers[number] = value
    dtype, shard, offset, size = numbers[1], numbers[3], numbers[4], numbers[5]
    if dtype not in _DTYPES:
        return None
    if shard >= num_shards or math.prod(shape) * _DTYPES[dtype].itemsize != size:
        raise WireError(f"{name}: shape {shape} does not fit its {size} bytes or its shard")
    return Entry(name, dtype, tuple(shape), shard, offset, size, checksum)
