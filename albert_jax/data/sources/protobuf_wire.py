"""The few pieces of the protocol-buffer wire format that records, vocabularies, checkpoints need.

The format's own library demands of generated classes, such as SentencePiece brings, that it be at
least as new as they are; other packages, such as Apache Beam, hold it back.
"""

from __future__ import annotations

from collections.abc import Iterator


class WireError(ValueError):
    """Bytes that are not what they should be; the message says how."""


def varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, next place) of a base-128 number of at most 64 bits. Raises WireError."""
    number = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise WireError("a number in it does not end")
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, place


def encode_varint(number: int) -> bytes:
    """Base-128 form of a number that is not negative."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) pairs of a message: numbers for varints, bytes for all else.

    Raises WireError where the bytes are not a message.
    """
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = varint(data, place)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, place = varint(data, place)
        if length is None or place + length > len(data):
            raise WireError("a part of it is not a valid message")
        yield number, data[place : place + length]
        place += length
