"""The sorted table that is the .index file of a TF1 checkpoint (the LevelDB table format).

A file is: data blocks, an empty meta-index block, an index block, a footer of 48 bytes (two block
handles, zero padding, a magic number). A block is a run of prefix-compressed entries followed by
the offsets of its restart points; after each block stand one byte (0: not compressed) and the
masked CRC-32C of both. TensorFlow never compresses the index of a checkpoint.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.protobuf_wire import WireError, encode_varint, varint

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_RESTART_EVERY = 16
_BLOCK_BYTES = 1 << 18


def parse(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table, every checksum verified. Raises WireError."""
    if len(data) < _FOOTER:
        raise WireError(f"it has {len(data)} bytes, fewer than a footer")
    footer = data[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise WireError("its last 8 bytes are not those of a table: it is truncated or no index")
    place = 0
    handle = []
    for _ in range(4):
        number, place = varint(footer, place)
        handle.append(number)
    if any(footer[place:-8]):
        raise WireError("its footer is not that of a table")
    if list(_entries(_block(data, handle[0], handle[1]))):
        raise WireError("it holds notes on its blocks, which no checkpoint has")
    entries: dict[bytes, bytes] = {}
    for _, value in _entries(_block(data, handle[2], handle[3])):
        offset, place = varint(value, 0)
        length, _ = varint(value, place)
        for key, content in _entries(_block(data, offset, length)):
            if key in entries:
                raise WireError(f"entry {key!r} stands there twice")
            entries[key] = content
    return entries


def build(entries: Mapping[bytes, bytes]) -> bytes:
    """A table of these entries, byte for byte as TensorFlow writes it."""
    out = bytearray()
    index: list[tuple[bytes, bytes]] = []
    block: list[tuple[bytes, bytes]] = []
    size = 0
    keys = sorted(entries)
    for position, key in enumerate(keys):
        block.append((key, entries[key]))
        size += len(key) + len(entries[key])
        last = position + 1 == len(keys)
        if last or size >= _BLOCK_BYTES:
            bound = _after(key) if last else _between(key, keys[position + 1])
            index.append((bound, _append(out, _encode(block, _RESTART_EVERY))))
            block, size = [], 0
    meta = _append(out, _encode([], _RESTART_EVERY))
    footer = meta + _append(out, _encode(index, 1))
    return bytes(out) + footer.ljust(_FOOTER - 8, b"\0") + struct.pack("<Q", _MAGIC)


def _block(data: bytes, offset: int, length: int) -> bytes:
    end = offset + length
    if end + 5 > len(data) - _FOOTER:
        raise WireError(f"a block at byte {offset} lies outside the file")
    (stored,) = struct.unpack("<I", data[end + 1 : end + 5])
    if masked_crc32c(data[offset : end + 1]) != stored:
        raise WireError(f"the checksum of the block at byte {offset} is wrong")
    if data[end]:
        raise WireError(f"the block at byte {offset} is compressed, which no checkpoint is")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise WireError("a block is shorter than its trailer")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise WireError("a block claims more restart points than it has bytes")
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place)
        fresh, place = varint(block, place)
        size, place = varint(block, place)
        if shared > len(key) or place + fresh + size > end:
            raise WireError("an entry runs over the end of its block")
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + size]
        place += size


def _encode(entries: list[tuple[bytes, bytes]], restart_every: int) -> bytes:
    out, restarts, previous = bytearray(), [0], b""
    for position, (key, value) in enumerate(entries):
        shared = 0
        if position % restart_every:
            limit = min(len(key), len(previous))
            while shared < limit and key[shared] == previous[shared]:
                shared += 1
        elif position:
            restarts.append(len(out))
        for number in (shared, len(key) - shared, len(value)):
            out += encode_varint(number)
        out += key[shared:] + value
        previous = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _append(out: bytearray, block: bytes) -> bytes:
    """Adds a block with its trailer; returns its handle."""
    handle = encode_varint(len(out)) + encode_varint(len(block))
    out += block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0"))
    return handle


def _after(key: bytes) -> bytes:
    """A short key that is not below `key`."""
    for position, byte in enumerate(key):
        if byte != 255:
            return key[:position] + bytes([byte + 1])
    return key


def _between(key: bytes, following: bytes) -> bytes:
    """A short key that is not below `key` and below `following`."""
    shared = 0
    while shared < min(len(key), len(following)) and key[shared] == following[shared]:
        shared += 1
    if shared < min(len(key), len(following)) and key[shared] + 1 < following[shared]:
        return key[:shared] + bytes([key[shared] + 1])
    return key
