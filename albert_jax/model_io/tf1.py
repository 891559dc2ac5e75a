"""TF1 checkpoints (Saver V2) of google-research/albert and albert_zh, read without TensorFlow.

PREFIX.index is a sorted table. Its empty key holds a header (number of shards, byte order), and
the name of each variable its type, shape, shard, byte range and masked CRC-32C. The bytes are in
PREFIX.data-i-of-n. Every checksum is verified.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.errors import CheckpointError
from albert_jax.files import storage_errors
from albert_jax.json_files import read_json
from albert_jax.model_io import albert_zh, parameter_conversion
from albert_jax.model_io.parameter_names import Params
from albert_jax.model_io.weights import LazyTensors, Weights
from albert_jax.protobuf_wire import WireError, fields, varint

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


def index_file(source: Path) -> Path | None:
    """The index file of the checkpoint that a folder, a prefix or an index file means, if any.

    Raises CheckpointError for a folder of several checkpoints.
    """
    if source.is_dir():
        indexes = list(source.glob("*.index"))
        if len(indexes) > 1:
            raise CheckpointError(
                f"{source} holds {len(indexes)} .index files: name one checkpoint by its prefix"
            )
        return indexes[0] if indexes else None
    index = source if source.suffix == ".index" else source.with_name(source.name + ".index")
    return index if index.is_file() else None


def read(index: Path, config_file: Path | None = None) -> Weights:
    """Reads the weights of the checkpoint with this index file.

    Raises CheckpointError if anything is missing, damaged or not an ALBERT.
    """
    variables = read_variables(index)
    is_albert_zh = albert_zh.PROJECTION in variables
    if is_albert_zh:
        variables = albert_zh.as_original(variables, str(index))
    parameter_conversion.refuse_other_models(variables, str(index))
    raw_path = config_file or _config_beside(index)
    raw = read_json(raw_path)
    if raw.get("ln_type", "postln") != "postln":
        raise CheckpointError(
            f"{raw_path}: ln_type is {raw['ln_type']!r}: LayerNorm before the sublayers is another "
            "network than ALBERT; import one with LayerNorm after them"
        )
    if is_albert_zh:
        raw = {**raw, "embedding_size": raw.get("hidden_size")}
    act = raw.get("hidden_act", "gelu") or "linear"
    # The original's gelu is the tanh form.
    act = "gelu_new" if act == "gelu" else act
    config = parameter_conversion.model_config_from(raw, act, str(raw_path))
    return Weights(config=config, params=from_original(variables, config, str(index)), format="tf1")


def _config_beside(index: Path) -> Path:
    """albert_config.json, or the one file like albert_config_base.json, in the index's folder."""
    found = list(index.parent.glob("albert_config*.json"))
    return found[0] if len(found) == 1 else index.with_name(CONFIG_NAME)


def from_original(values: Mapping[str, Any], config: ModelConfig, where: str = "weights") -> Params:
    """Variables of the original as our parameters.

    Optimizer slots (adam_m, adam_v) and global_step are ignored, and the prefix ``module/`` of
    TF-Hub is understood. Raises CheckpointError as `from_format`.
    """
    names = {
        name.removeprefix("module/"): name
        for name in values
        if name != "global_step" and not name.endswith(("/adam_m", "/adam_v"))
    }
    tensors = LazyTensors(names, values.__getitem__)
    return parameter_conversion.from_format(tensors, config, "original", where)


def read_variables(index: Path) -> LazyTensors:
    """The numeric variables of the checkpoint with this index file, which is verified.

    Raises CheckpointError naming the file, and the variable where one is at fault. Damaged bytes
    of a variable are found when it is read.
    """
    with storage_errors(str(index)):
        if index.stat().st_size > INDEX_LIMIT:
            raise CheckpointError(f"{index} is larger than {INDEX_LIMIT} bytes: it is not an index")
        data = index.read_bytes()
    try:
        table = parse_table(data)
        header: dict[int, Any] = dict(fields(table.pop(b"", b"")))
        if header.get(2):
            raise WireError("its data are big-endian, which is not supported")
        parts = f"of-{int(header.get(1, 1)):05d}"
        variables = {}
        for key, value in table.items():
            entry: dict[int, Any] = dict(fields(value))
            if entry.get(1) not in _DTYPES:
                continue
            name = key.decode()
            if 7 in entry:
                raise WireError(f"{name} is stored in slices, which is not supported")
            dims: list[Any] = [dim for number, dim in fields(entry.get(2, b"")) if number == 2]
            variables[name] = _Variable(
                index.with_suffix(f".data-{int(entry.get(3, 0)):05d}-{parts}"),
                int(entry.get(4, 0)),
                _DTYPES[entry[1]],
                tuple(int(dict(fields(dim)).get(1, 0)) for dim in dims),
                int.from_bytes(entry.get(6, b""), "little"),
            )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{index}: {error}: copy the checkpoint again") from None
    return LazyTensors({name: name for name in variables}, lambda n: _array(n, variables[n]))


class _Variable(NamedTuple):
    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    checksum: int


def _array(name: str, variable: _Variable) -> np.ndarray:
    """The value of a variable, its checksum verified."""
    path, offset, dtype, shape, checksum = variable
    size = math.prod(shape) * dtype.itemsize
    if not path.is_file():
        raise CheckpointError(f"{path}: this part of the checkpoint is missing: copy it too")
    with storage_errors(str(path)), path.open("rb") as file:
        # Without this check a damaged size could ask for any amount of memory.
        if offset + size > path.stat().st_size:
            raise CheckpointError(f"{path} is truncated at {name}: copy the checkpoint again")
        file.seek(offset)
        data = file.read(size)
    if masked_crc32c(data) != checksum:
        raise CheckpointError(f"{path}: the checksum of {name} is wrong: copy the checkpoint again")
    return np.frombuffer(data, dtype).reshape(shape)


# ---- the table, which has LevelDB's format -------------------------------------------------------
#
# A file consists of data blocks, an empty meta-index block, an index block, and a footer of 48
# bytes (two block handles, zero padding, a magic number). A block is a run of prefix-compressed
# entries followed by the offsets of its restart points. After each block follow one byte (0 means
# not compressed) and the masked CRC-32C of both. TensorFlow never compresses the index.

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48


def parse_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table, every checksum verified. Raises WireError."""
    footer = data[-_FOOTER:]
    if len(data) < _FOOTER or not footer.endswith(_MAGIC):
        raise WireError("it does not end as a table does: it is truncated or no index")
    position, handles = 0, []
    for _ in range(4):
        number, position = varint(footer, position)
        handles.append(number)
    if any(footer[position:-8]) or list(_entries(_block(data, *handles[:2]))):
        raise WireError("its footer is damaged")
    entries: dict[bytes, bytes] = {}
    for _, handle in _entries(_block(data, *handles[2:])):
        offset, position = varint(handle, 0)
        length, _ = varint(handle, position)
        entries.update(_entries(_block(data, offset, length)))
    return entries


def _block(data: bytes, offset: int, length: int) -> bytes:
    end = offset + length
    if end + 5 > len(data) - _FOOTER:
        raise WireError(f"a block at byte {offset} lies outside the file")
    stored = int.from_bytes(data[end + 1 : end + 5], "little")
    if data[end] or masked_crc32c(data[offset : end + 1]) != stored:
        raise WireError(f"the checksum of the block at byte {offset} is wrong")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end, position, key = len(block) - 4 - 4 * restarts, 0, b""
    while position < end:
        shared, position = varint(block, position)
        fresh, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + fresh + size > end:
            raise WireError("an entry runs over the end of its block")
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + size]
        position += size
