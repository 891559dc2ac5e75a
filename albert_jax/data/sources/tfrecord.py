"""Reading TFRecord files of tf.train.Example without TensorFlow.

A record is its length (8 bytes), the masked CRC-32C of the length, the data, and the masked
CRC-32C of the data, all little-endian. An Example is a protocol buffer that maps names to lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np

from albert_jax import protobuf_wire
from albert_jax.data.sources import text_files
from albert_jax.errors import DataError

MAX_RECORD_BYTES = 64 << 20
"""A length above this one means that the file is damaged."""


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """The CRC-32C of some bytes in the rotated and shifted form that TensorFlow's files store."""
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: str) -> Iterator[bytes]:
    """The records of a file, in order.

    Raises:
      DataError: A checksum does not match, or the file ends inside a record.
    """
    with text_files.open_stream(path) as stream:
        number = 0
        while head := stream.read(12):
            damaged = DataError(f"{path}, record {number}: is damaged or cut off: get it again")
            length, length_checksum = struct.unpack("<QI", head.ljust(12, b"\0"))
            if masked_crc32c(head[:8]) != length_checksum or length > MAX_RECORD_BYTES:
                raise damaged
            data, tail = stream.read(length), stream.read(4)
            if len(tail) < 4 or masked_crc32c(data) != int.from_bytes(tail, "little"):
                raise damaged
            yield data
            number += 1


def bytes_feature(example: bytes, name: str) -> list[bytes] | None:
    """The values of a bytes feature of an Example, or None if it has no such feature.

    Raises:
      WireError: The bytes are not an Example.
    """
    for features in _messages(example, 1):
        for entry in _messages(features, 1):
            if next(_messages(entry, 1), b"") == name.encode():
                feature = next(_messages(entry, 2), b"")
                values = next(_messages(feature, 1), None)
                return None if values is None else list(_messages(values, 1))
    return None


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    """The contents of the fields with this number."""
    for field_number, value in protobuf_wire.fields(message):
        if field_number == number and isinstance(value, bytes):
            yield value
