"""Exact duplicates over a whole corpus, in bounded memory and by independent workers.

Each part writes one table of its documents, sorted by hash. The hashes are then divided by
their first bits into ranges that fit in memory; a range is reduced by reading its stretch of
every table. Of equal documents the first stays: smallest part, then smallest number.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np

from albert_jax import files

RANGE_DOCUMENTS = 1 << 21
"""About how many documents are compared at once (64 MB)."""

ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<u8"), ("group", "<u8")])
"""A document: its hash in two halves (both 0: too short to keep), its number in the part, and
the hash of its group."""


def hash_text(content: bytes) -> tuple[int, int]:
    """128-bit hash of a document, in two halves, never both 0."""
    digest = hashlib.blake2b(content, digest_size=16).digest()
    high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    return (high, low) if high or low else (0, 1)


def hash_group(name: str) -> int:
    """64-bit hash that decides on which side of the held-out split a group lies."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=b"group")
    return int.from_bytes(digest.digest(), "little")


def ranges(documents: int) -> int:
    """Into how many ranges the hashes are divided: a power of two that depends on the count."""
    count = 1
    while count * RANGE_DOCUMENTS < documents:
        count *= 2
    return count


def write_array(path: str, array: np.ndarray) -> None:
    """Writes an array as one whole .npy object."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    files.write(path, buffer.getbuffer())


def read_array(path: str) -> np.ndarray:
    """Reads an array; a local one is only mapped."""
    if files.is_bucket(path):
        content = files.read(path)
        return np.load(io.BytesIO(content or b""), allow_pickle=False)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array cannot be mapped
        return np.load(path, allow_pickle=False)


def reduce_range(tables: list[str], index: int, count: int) -> np.ndarray:
    """Copies to drop in one range of hashes: int64 [copies, 2] of (part, number), sorted."""
    width = (1 << 64) // count
    low, high = index * width, (index + 1) * width
    rows: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    for part, path in enumerate(tables):
        table = read_array(path)
        begin = int(np.searchsorted(table["high"], np.uint64(low), side="left"))
        end = len(table)
        if high < 1 << 64:
            end = int(np.searchsorted(table["high"], np.uint64(high), side="left"))
        stretch = np.array(table[begin:end])
        stretch = stretch[(stretch["high"] != 0) | (stretch["low"] != 0)]
        rows.append(stretch)
        owners.append(np.full(len(stretch), part, np.int64))
    if not rows:
        return np.zeros((0, 2), np.int64)
    all_rows, owner = np.concatenate(rows), np.concatenate(owners)
    order = np.lexsort((all_rows["number"], owner, all_rows["low"], all_rows["high"]))
    all_rows, owner = all_rows[order], owner[order]
    same = np.zeros(len(all_rows), bool)
    same[1:] = (all_rows["high"][1:] == all_rows["high"][:-1]) & (
        all_rows["low"][1:] == all_rows["low"][:-1]
    )
    dropped = np.stack([owner[same], all_rows["number"][same].astype(np.int64)], axis=1)
    return dropped[np.lexsort((dropped[:, 1], dropped[:, 0]))]
