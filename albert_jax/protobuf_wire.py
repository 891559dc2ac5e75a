"""A minimal reader and writer of the protocol-buffer wire format.

TFRecord examples, SentencePiece models and TF1 checkpoints are protocol buffers. The protobuf
library itself is not used: it refuses generated classes that are newer than it is, and other
packages, such as Apache Beam, hold it at an old version.
"""

from __future__ import annotations

from collections.abc import Iterator


class WireError(ValueError):
    """Bytes that are not a valid message; the error's text says why."""


def varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 integer of at most 64 bits and the position after it; raises WireError."""
    number = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise WireError("a number in it does not end")
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number & (1 << 64) - 1, position


def encode_varint(number: int) -> bytes:
    """Encodes a non-negative number in base 128."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (field number, value) pairs of a message: varints as integers, others as bytes.

    Raises WireError where the bytes are not a message.
    """
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = varint(data, position)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(wire_type)
        if wire_type == 2:
            length, position = varint(data, position)
        if length is None or position + length > len(data):
            raise WireError("a part of it is not a valid message")
        yield number, data[position : position + length]
        position += length
