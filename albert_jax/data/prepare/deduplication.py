"""Finding exact copies over a whole corpus, in bounded memory and by independent workers.

Each part writes a table of its documents, sorted by hash. The hashes are then divided by their
first bits into ranges that fit in memory. A range reads its stretch of every table, which the
counts of hashes by prefix locate, so each table is read once in all. Of equal documents the first
stays: the one in the part with the smallest number, then the one with the smallest number there.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np

from albert_jax import files

RANGE_DOCUMENTS = 1 << 21
"""About how many documents are compared at once (64 MB)."""
PREFIX_BITS = 10
"""Bits of the hash by which a table is counted. There are at most 2^10 ranges."""

ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<u8"), ("group", "<u8")])
"""A document: its hash in two halves (both 0 if it is left out), its number in the part, and the
hash of its group."""
NUMBER = np.dtype("<i8")
"""Number of a document within its part."""


def hash_text(content: bytes) -> tuple[int, int]:
    """128-bit hash of a document, in two halves, never both 0."""
    digest = hashlib.blake2b(content, digest_size=16).digest()
    high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return (high, low) if high or low else (0, 1)


def hash_group(name: str) -> int:
    """64-bit hash that decides on which side of the held-out split a group lies."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=b"group")
    return int.from_bytes(digest.digest(), "little")


def num_ranges(documents: int) -> int:
    """Into how many ranges the hashes are divided: a power of two that depends on the count."""
    count = 1
    while count * RANGE_DOCUMENTS < documents and count < 1 << PREFIX_BITS:
        count *= 2
    return count


def prefix_ends(table: np.ndarray) -> list[int]:
    """For each prefix of the hash, the number of rows of a sorted table up to its last one."""
    prefixes = table["high"] >> np.uint64(64 - PREFIX_BITS)
    counts = np.bincount(prefixes.astype(np.int64), minlength=1 << PREFIX_BITS)
    return np.cumsum(counts).tolist()


def write_rows(path: str, rows: np.ndarray) -> None:
    """Writes an array of records without a header, so that a stretch of it can be read."""
    files.write(path, np.ascontiguousarray(rows).view(np.uint8).data)


def read_rows(path: str, dtype: np.dtype, begin: int, end: int) -> np.ndarray:
    """Reads the records from `begin` to `end`, and nothing else of the file."""
    size = dtype.itemsize
    if begin == end:
        return np.zeros(0, dtype)
    with files.storage_errors(path):
        if files.is_bucket(path):
            content = files.bucket_client(path).cat_file(path, start=begin * size, end=end * size)
            return np.frombuffer(content, dtype)
        return np.fromfile(path, dtype, end - begin, offset=begin * size)


def write_array(path: str, array: np.ndarray) -> None:
    """Writes an array as a .npy object."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write(path, buffer.getbuffer())


def read_array(path: str) -> np.ndarray:
    """Reads an array that `write_array` has written."""
    return np.load(io.BytesIO(files.read(path) or b""), allow_pickle=False)


def stretch(prefix_ends: Sequence[int], index: int, count: int) -> tuple[int, int]:
    """The first row of a table in one of `count` ranges of hashes, and one after its last."""
    width = len(prefix_ends) // count
    return (prefix_ends[index * width - 1] if index else 0), prefix_ends[(index + 1) * width - 1]


def find_copies(tables: Sequence[str], stretches: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Compares the documents of one range of hashes.

    Args:
      tables: Paths of the tables of all parts.
      stretches: The rows of each table that belong to the range.

    Returns:
      For each part the numbers of the documents that are copies of earlier ones, sorted.
    """
    found = []
    for path, (begin, end) in zip(tables, stretches, strict=True):
        rows = read_rows(path, ROW, begin, end)
        found.append(rows[(rows["high"] != 0) | (rows["low"] != 0)])
    rows = np.concatenate(found)
    part = np.repeat(np.arange(len(tables)), list(map(len, found)))
    order = np.lexsort((rows["number"], part, rows["low"], rows["high"]))
    rows, part = rows[order], part[order]
    is_copy = np.zeros(len(rows), bool)
    is_copy[1:] = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    part, number = part[is_copy], rows["number"][is_copy].astype(NUMBER)
    # One sort and one split: a corpus may have tens of thousands of parts.
    order = np.lexsort((number, part))
    borders = np.searchsorted(part[order], np.arange(1, len(tables)))
    return np.split(number[order], borders)
