"""A writer of TF1 checkpoints (Saver V2), for tests of the reader."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.protobuf_wire import encode_varint

CODES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def write(prefix: Path, values: dict[str, np.ndarray]) -> None:
    """PREFIX.index and PREFIX.data-00000-of-00001, as TensorFlow writes them."""
    entries, data = {b"": b"\x08\x01\x1a\x02\x08\x01"}, b""
    for name in sorted(values):
        array = np.asarray(values[name])
        content = array.tobytes()
        dims = b"".join(_message(2, b"\x08" + encode_varint(n)) for n in array.shape)
        entries[name.encode()] = (
            b"\x08" + encode_varint(CODES[str(array.dtype)]) + _message(2, dims)
            + b"\x20" + encode_varint(len(data)) + b"\x28" + encode_varint(len(content))
            + b"\x35" + struct.pack("<I", masked_crc32c(content))
        )  # fmt: skip
        data += content
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    prefix.with_name(prefix.name + ".index").write_bytes(table(entries))


def table(entries: dict[bytes, bytes], per_block: int = 100) -> bytes:
    """A sorted table with prefix-compressed keys, a restart point every 16 of them."""
    out, index, keys = bytearray(), {}, sorted(entries)
    for start in range(0, len(keys), per_block):
        part = keys[start : start + per_block]
        index[part[-1]] = _append(out, _block({key: entries[key] for key in part}))
    footer = _append(out, _block({})) + _append(out, _block(index))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(entries: dict[bytes, bytes]) -> bytes:
    out, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries.items()):
        if number and number % 16 == 0:
            restarts.append(len(out))
        shared = 0 if number % 16 == 0 else len(os.path.commonprefix([key, previous]))
        for size in (shared, len(key) - shared, len(value)):
            out += encode_varint(size)
        out += key[shared:] + value
        previous = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _append(out: bytearray, block: bytes) -> bytes:
    handle = encode_varint(len(out)) + encode_varint(len(block))
    out += block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0"))
    return handle


def _message(number: int, content: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content
