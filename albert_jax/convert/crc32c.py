"""CRC-32C (Castagnoli), vectorised: the checksum of TF1 checkpoints.

A table-driven loop in Python manages a megabyte a second and a checkpoint has hundreds. The
checksum is linear over GF(2), so the data are cut into equal lanes whose registers advance
together in numpy; the lanes are then joined pairwise by "append n zero bytes", a 32 x 32 matrix
over GF(2) that is squared from one level to the next. Leading zeros do not change a register
that starts at 0, so short data are padded in front; the true start value is added at the end.
"""

from __future__ import annotations

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_LANES = 1 << 13
_BLOCK = 1 << 24
"""Bytes worked on at once: bounds the memory of a checksum."""


@functools.cache
def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@functools.cache
def _pair_table() -> np.ndarray:
    """Register after two bytes, by the 16 bits that are register xor data."""
    byte = _byte_table()
    low = np.arange(1 << 16, dtype=np.uint32)
    once = (low >> 8) ^ byte[low & 255]
    return (once >> 8) ^ byte[once & 255]


@functools.cache
def _append_zeros(bits: int) -> np.ndarray:
    """Columns of the matrix that appends 2**bits zero bytes (register bit -> register)."""
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    columns = (columns >> 8) ^ _byte_table()[columns & 255]
    for _ in range(bits):
        columns = _apply(columns, columns)
    return columns


def _apply(columns: np.ndarray, registers: np.ndarray) -> np.ndarray:
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= columns[bit] * ((registers >> np.uint32(bit)) & np.uint32(1))
    return result


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """The checksum of bytes (any contiguous buffer), as in RFC 3720."""
    octets = np.frombuffer(data, np.uint8)
    register = np.array([0xFFFFFFFF], np.uint32)
    for start in range(0, len(octets), _BLOCK):
        part = octets[start : start + _BLOCK]
        register = _advance(register, len(part)) ^ _from_zero(part)
    return int(register[0]) ^ 0xFFFFFFFF


def _advance(register: np.ndarray, zeros: int) -> np.ndarray:
    for bit in range(zeros.bit_length()):
        if zeros >> bit & 1:
            register = _apply(_append_zeros(bit), register)
    return register


def _from_zero(octets: np.ndarray) -> np.ndarray:
    """Register [1] after these bytes when it starts at 0."""
    lanes = _LANES if len(octets) >= 16 * _LANES else 16
    words = max(1, -(-len(octets) // (2 * lanes)))
    words = 1 << (words - 1).bit_length()  # a power of two: then joining needs squarings only
    padded = np.zeros(2 * words * lanes, np.uint8)
    padded[len(padded) - len(octets) :] = octets
    columns = padded.view("<u2").reshape(lanes, words)
    registers, table = np.zeros(lanes, np.uint32), _pair_table()
    for k in range(words):
        registers = (registers >> 16) ^ table[(registers & 0xFFFF) ^ columns[:, k]]
    bits = (2 * words).bit_length() - 1
    while len(registers) > 1:
        registers = _apply(_append_zeros(bits), registers[0::2]) ^ registers[1::2]
        bits += 1
    return registers


def masked(checksum: int) -> int:
    """The rotated form that table files and bundles store."""
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF
