"""Rows of metrics.jsonl as events of a TensorBoard event file, without TensorFlow.

The functions return bytes that are appended to one file. tensorboardX's own SummaryWriter would
pass events to a thread through a queue of ten: a full disk ends that thread, and the eleventh row
would then wait forever.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from albert_jax.data.sources.tfrecord import masked_crc32c


def file_name() -> str:
    """A name for the event file of this process."""
    return f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"


def header() -> bytes:
    """The first event of a file, which names its format."""
    return _record(wall_time=time.time(), file_version="brain.Event:2")


def restart(first_step: int) -> bytes:
    """An event that makes TensorBoard drop earlier events for this step and later ones."""
    return _record(step=first_step, wall_time=time.time(), session_log={"status": "START"})


def event(row: Mapping[str, Any]) -> bytes:
    """All numbers of a plain row as one event; nested ones are named "outer/inner"."""
    prefix = "evaluation/" if row["kind"] == "evaluation" else "train/"
    values = [
        {"tag": prefix + tag, "simple_value": number}
        for tag, number in _numbers(row, "")
        if tag not in ("step", "time")
    ]
    return _record(step=row["step"], wall_time=row["time"], summary={"value": values})


def _record(**fields: Any) -> bytes:
    """An event in the frame of a TFRecord: length and data, each with its checksum."""
    from tensorboardX.proto import event_pb2

    message = event_pb2.Event(**fields)  # type: ignore[attr-defined]  # Made at run time.
    data = message.SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]


def _numbers(row: Mapping[str, object], prefix: str) -> list[tuple[str, float]]:
    numbers: list[tuple[str, float]] = []
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers += _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append((prefix + key, value))
    return numbers
