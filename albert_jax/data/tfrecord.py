"""TFRecord files of tf.train.Example, read without TensorFlow: framing, checksums, features.

A record is its length (8 bytes), a masked CRC-32C of the length, the data, and a masked CRC-32C
of the data, all little-endian. An Example is a protocol buffer: a map from names to lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

import numpy as np

from albert_jax.data import text_files, wire
from albert_jax.errors import DataError

MAX_RECORD = 64 << 20
"""Bytes; a length above it is damage."""

_STEP = 1024


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
            if len(head) < 12 or masked_crc(head[:8]) != check or length > MAX_RECORD:
                raise _damaged(path, number)
            data, tail = stream.read(length), stream.read(4)
            if len(data) < length or len(tail) < 4 or masked_crc(data) != _number(tail):
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


def masked_crc(data: bytes) -> int:
    """The checksum of the format: CRC-32C, rotated and shifted."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli). Whole blocks are looked up byte by byte at once in numpy."""
    table, blocks, shift = _tables()
    if len(data) < 4:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    # A CRC is linear: each byte adds what it would leave alone, its place being given, and the
    # start value acts like a change of the first four bytes.
    content = np.frombuffer(data, np.uint8).copy()
    content[:4] ^= 255
    head = len(content) % _STEP
    places = np.arange(_STEP)
    crc = int(np.bitwise_xor.reduce(blocks[places[_STEP - head :], content[:head]]))
    rows = content[head:].reshape(-1, _STEP)
    for row in np.bitwise_xor.reduce(blocks[places, rows], axis=1).tolist():
        crc = (
            shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255]
            ^ shift[3][crc >> 24] ^ row
        )  # fmt: skip
    return crc ^ 0xFFFFFFFF


@cache
def _tables() -> tuple[list[int], np.ndarray, list[list[int]]]:
    """CRC of a byte; uint32 [_STEP, 256] of a byte with the rest of a block behind it; and of
    each byte of a running CRC moved by a block."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    blocks = np.empty((_STEP, 256), np.uint32)
    blocks[-1] = table
    for i in range(_STEP - 2, -1, -1):
        blocks[i] = table[blocks[i + 1] & 255] ^ (blocks[i + 1] >> 8)
    # The first four bytes of a block meet the running CRC.
    return table.tolist(), blocks, [blocks[i].tolist() for i in range(4)]


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
