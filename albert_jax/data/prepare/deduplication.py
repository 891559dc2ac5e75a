"""Finding exact duplicates over a whole corpus, in bounded memory and by independent workers.

Each part of the corpus gets a table of its documents, sorted by hash. The first bits of the hash
divide all documents into partitions that fit in memory, and each partition is compared alone. Of
equal documents the first one stays, by part and then by its number within the part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from albert_jax import files

PARTITION_DOCUMENTS = 1 << 21
"""About how many documents are compared at once (64 MB)."""
PREFIX_BITS = 10
"""Bits of the hash that choose the partition, so there are at most 2^10 partitions."""

ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<u8"), ("group", "<u8")])
"""A document: its hash in two halves (both 0 if it is dropped), its number in the part, and the
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


def num_partitions(documents: int) -> int:
    """Number of partitions for a number of documents, a power of two."""
    count = 1
    while count * PARTITION_DOCUMENTS < documents and count < 1 << PREFIX_BITS:
        count *= 2
    return count


def prefix_ends(table: np.ndarray) -> list[int]:
    """For each prefix of the hash, the number of rows of a sorted table up to its last one."""
    prefixes = table["high"] >> np.uint64(64 - PREFIX_BITS)
    counts = np.bincount(prefixes.astype(np.int64), minlength=1 << PREFIX_BITS)
    return np.cumsum(counts).tolist()


def partition_rows(prefix_ends: Sequence[int], index: int, count: int) -> tuple[int, int]:
    """The first row of a table in partition `index` of `count`, and one after its last."""
    width = len(prefix_ends) // count
    return (prefix_ends[index * width - 1] if index else 0), prefix_ends[(index + 1) * width - 1]


def write_array(path: str, array: np.ndarray) -> None:
    """Writes the elements of an array without a header."""
    files.write(path, np.ascontiguousarray(array).view(np.uint8).data)


def read_array(path: str, dtype: np.dtype, begin: int, end: int) -> np.ndarray:
    """Reads the elements from `begin` to `end`, and nothing else of the file."""
    size = dtype.itemsize
    if begin == end:
        return np.zeros(0, dtype)
    with files.storage_errors(path):
        if files.is_bucket(path):
            content = files.bucket_client(path).cat_file(path, start=begin * size, end=end * size)
            return np.frombuffer(content, dtype)
        return np.fromfile(path, dtype, end - begin, offset=begin * size)


def find_duplicates(
    tables: Sequence[str], row_ranges: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """Compares the documents of one partition.

    Args:
      tables: Paths of the tables of all parts.
      row_ranges: The rows of each table that belong to the partition.

    Returns:
      For each part the numbers of the documents that repeat earlier ones, sorted.
    """
    rows_of_parts = []
    for path, (begin, end) in zip(tables, row_ranges, strict=True):
        rows = read_array(path, ROW, begin, end)
        rows_of_parts.append(rows[(rows["high"] | rows["low"]) != 0])
    rows = np.concatenate(rows_of_parts)
    part = np.repeat(np.arange(len(tables)), list(map(len, rows_of_parts)))
    order = np.lexsort((rows["number"], part, rows["low"], rows["high"]))
    rows, part = rows[order], part[order]
    repeats = np.zeros(len(rows), bool)
    repeats[1:] = (rows["high"][1:] == rows["high"][:-1]) & (rows["low"][1:] == rows["low"][:-1])
    part, number = part[repeats], rows["number"][repeats].astype(NUMBER)
    # One sort and one split, because a corpus may have tens of thousands of parts.
    order = np.lexsort((number, part))
    borders = np.searchsorted(part[order], np.arange(1, len(tables)))
    return np.split(number[order], borders)
