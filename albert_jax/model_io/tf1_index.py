"""The sorted table that is the .index file of a TF1 checkpoint (the LevelDB table format).

A file consists of data blocks, an empty meta-index block, an index block, and a footer of 48
bytes (two block handles, zero padding, a magic number). A block is a run of prefix-compressed
entries followed by the offsets of its restart points. After each block follow one byte (0 means
not compressed) and the masked CRC-32C of both. TensorFlow never compresses the index.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from albert_jax.data.sources.tfrecord import masked_crc32c
from albert_jax.protobuf_wire import WireError, varint

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48


def parse(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table, every checksum verified. Raises WireError."""
    footer = data[-_FOOTER:]
    if len(data) < _FOOTER or not footer.endswith(_MAGIC):
        raise WireError("it does not end as a table does: it is truncated or no index")
    position, handles = 0, []
    for _ in range(4):
        number, position = varint(footer, position)
        handles.append(number)
    if any(footer[position:-8]) or list(_entries(_block(data, *handles[:2]))):
        raise WireError("its footer is damaged")
    entries: dict[bytes, bytes] = {}
    for _, handle in _entries(_block(data, *handles[2:])):
        offset, position = varint(handle, 0)
        length, _ = varint(handle, position)
        entries.update(_entries(_block(data, offset, length)))
    return entries


def _block(data: bytes, offset: int, length: int) -> bytes:
    end = offset + length
    if end + 5 > len(data) - _FOOTER:
        raise WireError(f"a block at byte {offset} lies outside the file")
    (stored,) = struct.unpack("<I", data[end + 1 : end + 5])
    if data[end] or masked_crc32c(data[offset : end + 1]) != stored:
        raise WireError(f"the checksum of the block at byte {offset} is wrong")
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end, position, key = len(block) - 4 - 4 * restarts, 0, b""
    while position < end:
        shared, position = varint(block, position)
        fresh, position = varint(block, position)
        size, position = varint(block, position)
        if shared > len(key) or position + fresh + size > end:
            raise WireError("an entry runs over the end of its block")
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + size]
        position += size
