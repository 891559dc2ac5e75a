"""Rows of metrics.jsonl as events of a TensorBoard event file, without TensorFlow.

The functions return bytes that are appended to one file. An Event (event.proto) with a few scalars
is so small that it is encoded here: the packages that can do it import PyTorch where they find it,
which takes seconds in the middle of a run.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.protobuf_wire import encode_varint

# Field numbers of event.proto and summary.proto.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = 1, 2, 3, 5, 7
_STATUS, _START = 1, 1
_VALUE, _TAG, _SIMPLE_VALUE = 1, 1, 2


def file_name() -> str:
    """A name for the event file of this process."""
    return f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"


def header() -> bytes:
    """The first event of a file, which names its format."""
    return _record(0, time.time(), _message(_FILE_VERSION, b"brain.Event:2"))


def restart(first_step: int) -> bytes:
    """An event that makes TensorBoard drop earlier events for this step and later ones."""
    start = _integer(_STATUS, _START)
    return _record(first_step, time.time(), _message(_SESSION_LOG, start))


def event(row: Mapping[str, Any]) -> bytes:
    """All numbers of a plain row as one event; nested ones are named "outer/inner"."""
    prefix = "evaluation/" if row["kind"] == "evaluation" else "train/"
    values = [
        _message(_TAG, (prefix + tag).encode()) + _fixed(_SIMPLE_VALUE, "<f", number)
        for tag, number in _numbers(row, "")
        if tag not in ("step", "time")
    ]
    summary = b"".join(_message(_VALUE, value) for value in values)
    return _record(row["step"], row["time"], _message(_SUMMARY, summary))


def _record(step: int, wall_time: float, rest: bytes) -> bytes:
    """An event in the frame of a TFRecord: length and data, each with its checksum."""
    data = _fixed(_WALL_TIME, "<d", wall_time) + _integer(_STEP, step) + rest
    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]


def _integer(field: int, number: int) -> bytes:
    return encode_varint(field << 3) + encode_varint(number)


def _fixed(field: int, kind: Literal["<f", "<d"], number: float) -> bytes:
    with np.errstate(over="ignore"):  # A number beyond float32 is an infinity there.
        packed = np.asarray(number, kind).tobytes()
    return encode_varint(field << 3 | (5 if kind == "<f" else 1)) + packed


def _message(field: int, data: bytes) -> bytes:
    return encode_varint(field << 3 | 2) + encode_varint(len(data)) + data


def _numbers(row: Mapping[str, object], prefix: str) -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((prefix + key, value))
    return numbers
