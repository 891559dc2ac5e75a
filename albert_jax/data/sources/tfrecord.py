"""TFRecord files of tf.train.Example, read without TensorFlow: framing, checksums, features.

A record is its length (8 bytes), a masked CRC-32C of the length, the data, and a masked CRC-32C
of the data, all little-endian. An Example is a protocol buffer: a map from names to lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from albert_jax.data.sources import protobuf_wire as wire
from albert_jax.data.sources import text_files
from albert_jax.data.sources.crc32c import crc32c, masked
from albert_jax.errors import DataError

MAX_RECORD = 64 << 20
"""Bytes; a length above it is damage."""


def records(path: str) -> Iterator[bytes]:
    """The records of a file, in order.

    Raises:
      DataError: a checksum that does not fit, or an end in the middle of a record; names its
        number.
    """
    with text_files.opened(path) as stream:
        number = 0
        while head := stream.read(12):
            length, check = struct.unpack("<QI", head.ljust(12, b"\0"))
            if len(head) < 12 or masked(crc32c(head[:8])) != check or length > MAX_RECORD:
                raise _damaged(path, number)
            data, tail = stream.read(length), stream.read(4)
            if len(data) < length or len(tail) < 4 or masked(crc32c(data)) != _number(tail):
                raise _damaged(path, number)
            yield data
            number += 1


def bytes_feature(example: bytes, name: str) -> list[bytes] | None:
    """The values of a bytes feature of an Example; None if it has no such feature.

    Raises:
      ValueError: the bytes are no Example.
    """
    feature = _feature(example, name)
    values = None if feature is None else next(_parts(feature, 1), None)
    return None if values is None else list(_parts(values, 1))


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _damaged(path: str, number: int) -> DataError:
    return DataError(f"{path}, record {number}: is damaged or cut off: get the file again")


def int64_feature(example: bytes, name: str) -> list[int] | None:
    """The values of an int64 feature of an Example; None if it has no such feature.

    Raises:
      ValueError: the bytes are no Example.
    """
    feature = _feature(example, name)
    packed = None if feature is None else next(_parts(feature, 3), None)
    if packed is None:
        return None
    values: list[int] = []
    for run in _parts(packed, 1):
        place = 0
        while place < len(run):
            value, place = wire.varint(run, place)
            values.append(value - (1 << 64) if value >> 63 else value)
    return values


def _parts(message: bytes, wanted: int) -> Iterator[bytes]:
    """Contents of the fields with this number."""
    for number, value in wire.fields(message):
        if number == wanted and isinstance(value, bytes):
            yield value


def _feature(example: bytes, name: str) -> bytes | None:
    wanted = name.encode()
    for features in _parts(example, 1):
        for entry in _parts(features, 1):
            if next(_parts(entry, 1), b"") == wanted:
                return next(_parts(entry, 2), b"")
    return None
