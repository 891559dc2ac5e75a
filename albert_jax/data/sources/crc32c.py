"""CRC-32C (Castagnoli): the checksum of TFRecord files and of TF1 checkpoints, in numpy.

A table-driven loop in Python manages a megabyte a second and a checkpoint has hundreds. A CRC is
linear: each byte of a block adds what it would leave alone, its place being given, so that a block
is looked up at once; only the running value goes from block to block.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78
_STEP = 1024
"""Bytes of a block."""
_BLOCKS = 1024
"""Blocks looked up at once: bounds the memory."""


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """The checksum of bytes (any contiguous buffer), as in RFC 3720."""
    table, blocks, shift = _tables()
    octets = np.frombuffer(data, np.uint8)
    head, crc = len(octets) % _STEP, 0xFFFFFFFF
    if head < 4:
        for byte in octets[:head].tolist():
            crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
    else:
        first = octets[:head].copy()
        first[:4] ^= 255  # The start value acts like a change of the first four bytes.
        crc = int(np.bitwise_xor.reduce(blocks[np.arange(_STEP - head, _STEP), first]))
    rows = octets[head:].reshape(-1, _STEP)
    for begin in range(0, len(rows), _BLOCKS):
        part = rows[begin : begin + _BLOCKS]
        for row in np.bitwise_xor.reduce(blocks[np.arange(_STEP), part], axis=1).tolist():
            crc = (
                shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255]
                ^ shift[3][crc >> 24] ^ row
            )  # fmt: skip
    return crc ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """The rotated and shifted form that files store."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _tables() -> tuple[list[int], np.ndarray, list[list[int]]]:
    """CRC of a byte; uint32 [_STEP, 256] of a byte with the rest of a block behind it; and of
    each byte of a running CRC moved by a block."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    blocks = np.empty((_STEP, 256), np.uint32)
    blocks[-1] = table
    for i in range(_STEP - 2, -1, -1):
        blocks[i] = table[blocks[i + 1] & 255] ^ (blocks[i + 1] >> 8)
    # The first four bytes of a block meet the running CRC.
    return table.tolist(), blocks, [blocks[i].tolist() for i in range(4)]
