"""TF1 checkpoints (Saver V2) of google-research/albert, read and written without TensorFlow.

PREFIX.index is a sorted table: under the empty key a header (number of shards, byte order), under
each variable's name its type, shape, shard, byte range and masked CRC-32C. PREFIX.data-i-of-n
are the bytes. Every checksum is verified on reading.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from albert_jax.config import LAYER_NORM_EPS, ModelConfig
from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.errors import CheckpointError, StorageError
from albert_jax.files import storage_errors
from albert_jax.model_io import tf1_index as table_file
from albert_jax.model_io.parameter_names import foreign_groups, original_group, to_original
from albert_jax.protobuf_wire import WireError, encode_varint, fields

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
_ACTIVATIONS = {
    "gelu": "gelu_new",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
    "": "linear",
}
_SHARED_FIELDS = (
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_hidden_layers",
    "num_hidden_groups",
    "inner_group_num",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
)


@dataclass(frozen=True)
class Entry:
    """Where one variable lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class Variables(Mapping[str, np.ndarray]):
    """The numeric variables of a checkpoint; each is read and verified when it is asked for."""

    def __init__(self, prefix: Path, shards: int, entries: dict[str, Entry]) -> None:
        self.prefix = prefix
        self.entries = entries
        self._shards = shards

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        path = _shard_path(self.prefix, entry.shard, self._shards)
        with storage_errors(str(path)), path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) != entry.size:
            raise CheckpointError(f"{path}: truncated inside {name}: copy the checkpoint again")
        if masked_crc32c(data) != entry.checksum:
            raise CheckpointError(
                f"{path}: the checksum of {name} is wrong: copy the checkpoint again"
            )
        return np.frombuffer(data, _DTYPES[entry.dtype]).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def find(source: str | os.PathLike[str]) -> Path:
    """The prefix of the checkpoint meant by a prefix, one of its files, or its folder.

    Raises CheckpointError where there is no index file, or more than one.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise CheckpointError(
                f"{path} holds {len(found)} .index files: name one checkpoint by its prefix"
            )
        path = found[0]
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name))
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise CheckpointError(
            f"{index}: no such file: a TF1 checkpoint is PREFIX.index with PREFIX.data-...; give "
            "the prefix"
        )
    return prefix


def read(source: str | os.PathLike[str]) -> Variables:
    """Opens a checkpoint: parses and verifies its index, and checks that its shards are there.

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
        table = table_file.parse(data)
        if b"" not in table:
            raise WireError("it has no header entry")
        shards = _header(table.pop(b""))
        for key, value in table.items():
            name = key.decode("utf-8")
            if name == "_CHECKPOINTABLE_OBJECT_GRAPH":
                raise CheckpointError(
                    f"{index} is a TF2 object checkpoint, not one of the original ALBERT: load it "
                    "with its own program and save its weights for Hugging Face"
                )
            entry = _entry(name, value, shards)
            if entry is not None:
                entries[name] = entry
    except (WireError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{index}: {error}: copy the checkpoint again") from None
    for shard in range(shards):
        path = _shard_path(prefix, shard, shards)
        if not path.is_file():
            raise CheckpointError(f"{path}: this part of the checkpoint is missing: copy it too")
        size = path.stat().st_size
        for name, entry in entries.items():
            if entry.shard == shard and entry.offset + entry.size > size:
                raise CheckpointError(
                    f"{path} has {size} bytes but {name} ends at {entry.offset + entry.size}: it "
                    "is truncated; copy the checkpoint again"
                )
    return Variables(prefix, shards, entries)


def write(prefix: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes variables as one-shard checkpoint PREFIX.index, PREFIX.data-00000-of-00001.

    Both appear under their names only when whole, the index last. Arrays are written one at a
    time in the order of their names, byte for byte as the original's Saver does.
    """
    prefix = Path(prefix)
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header = b"\x08\x01\x1a\x02\x08\x01"  # one shard, little-endian (0: left out), version 1
    table, offset = {b"": header}, 0
    shard = _shard_path(prefix, 0, 1)
    index = prefix.with_name(prefix.name + ".index")
    partial = [p.with_name(p.name + ".partial") for p in (shard, index)]
    try:
        with storage_errors(str(shard)), partial[0].open("wb") as file:
            for name in sorted(values, key=str.encode):
                array = np.asarray(values[name])
                array = np.ascontiguousarray(array).reshape(array.shape)
                if array.dtype not in codes:
                    raise CheckpointError(f"{name} has type {array.dtype}, unknown to TF1")
                data = array.reshape(-1).view(np.uint8)
                entry = (codes[array.dtype], array.shape, offset, data.size, masked_crc32c(data))
                table[name.encode()] = _encode_entry(*entry)
                file.write(data.data)
                offset += data.size
            file.flush()
            os.fsync(file.fileno())
        with storage_errors(str(index)):
            partial[1].write_bytes(table_file.build(table))
            for temporary, final in zip(partial, (shard, index), strict=True):
                os.replace(temporary, final)
    except (CheckpointError, StorageError):
        for temporary in partial:
            temporary.unlink(missing_ok=True)
        raise


def save(out_dir: str | os.PathLike[str], params: Mapping[str, Any], config: ModelConfig) -> None:
    """Writes model.ckpt.* and albert_config.json, as the original's releases name them, into a
    folder that exists.
    """
    out = Path(out_dir)
    values = to_original(params, config)
    with storage_errors(str(out)):
        text = json.dumps(to_config(config), indent=2, sort_keys=True) + "\n"
        (out / CONFIG_NAME).write_text(text, encoding="utf-8")
    write(out / "model.ckpt", values)


def to_config(config: ModelConfig) -> dict[str, Any]:
    """Keys of the original's albert_config.json (its "gelu" is our gelu_new)."""
    found: dict[str, Any] = {name: getattr(config, name) for name in _SHARED_FIELDS}
    found["num_hidden_groups"] = foreign_groups(config, original_group)
    acts = {ours: theirs for theirs, ours in _ACTIVATIONS.items() if theirs}
    found["hidden_act"] = acts[config.hidden_act]
    if config.sharing != "all":
        found["sharing"] = config.sharing  # Unknown keys are kept and ignored by the original.
    return found


def from_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """ModelConfig of an original albert_config.json; keys the network does not read are ignored."""
    from albert_jax.model_io.huggingface import model_config_from

    act = raw.get("hidden_act", "gelu") or "linear"
    if act not in _ACTIVATIONS:
        raise CheckpointError(
            f"{where}: hidden_act {act!r} is unknown; the original has {', '.join(_ACTIVATIONS)}"
        )
    eps = raw.get("layer_norm_eps", LAYER_NORM_EPS)
    if eps != LAYER_NORM_EPS:
        raise CheckpointError(f"{where}: layer_norm_eps is {eps}; ALBERT's is {LAYER_NORM_EPS}")
    return model_config_from(raw, _SHARED_FIELDS, _ACTIVATIONS[act], where)


def _shard_path(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def _header(data: bytes) -> int:
    found = dict(fields(data))
    shards = found.get(1, 0)
    if not isinstance(shards, int) or not 1 <= shards <= 4096:
        raise WireError(f"its header claims {shards!r} shards")
    if found.get(2, 0):
        raise WireError("its data are big-endian, which is not supported")
    return shards


def _entry(name: str, data: bytes, shards: int) -> Entry | None:
    """The parsed entry; None for types that hold no weights (strings)."""
    shape: list[int] = []
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    checksum = 0
    for number, value in fields(data):
        if number == 2 and isinstance(value, bytes):
            for kind, dim in fields(value):
                if kind == 2 and isinstance(dim, bytes):
                    shape.append(int(dict(fields(dim)).get(1, 0)))  # type: ignore[arg-type]
        elif number == 6 and isinstance(value, bytes):
            (checksum,) = struct.unpack("<I", value)
        elif number == 7:
            raise WireError(f"{name} is stored in slices, which is not supported")
        elif number in numbers and isinstance(value, int):
            numbers[number] = value
    dtype, shard, offset, size = numbers[1], numbers[3], numbers[4], numbers[5]
    if dtype not in _DTYPES:
        return None
    if shard >= shards or math.prod(shape) * _DTYPES[dtype].itemsize != size:
        raise WireError(f"{name}: shape {shape} does not fit its {size} bytes or its shard")
    return Entry(dtype, tuple(shape), shard, offset, size, checksum)


def _encode_entry(
    code: int, shape: tuple[int, ...], offset: int, size: int, checksum: int
) -> bytes:
    dims = b""
    for extent in shape:
        dim = b"\x08" + encode_varint(extent) if extent else b""
        dims += b"\x12" + encode_varint(len(dim)) + dim
    data = b"\x08" + encode_varint(code) + b"\x12" + encode_varint(len(dims)) + dims
    for tag, number in ((b"\x20", offset), (b"\x28", size)):
        data += tag + encode_varint(number) if number else b""
    return data + b"\x35" + struct.pack("<I", checksum)
