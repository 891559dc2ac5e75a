"""Packing: several short sequences share a row.

The method is first fit with the longest sequences first, applied row by row: a row repeatedly takes
the longest remaining sequence that fits. The set of remaining lengths is an integer whose bits are
the lengths, so the next sequence is found in one operation however many sequences there are.
"""

from __future__ import annotations

import numpy as np

from albert_jax.data import counter_rng


def sequences_per_row(sequence_length: int) -> int:
    """K, the most sequences in a packed row (64 at 512 tokens), a shape of the compiled step.

    Heads at K positions cost a thousandth of the layers, and a smaller K would leave rows of very
    short sequences half empty.
    """
    return max(1, sequence_length // 8)


def pack(lengths: np.ndarray, capacity: int, max_items: int, key: int) -> np.ndarray:
    """Row number of each item, int64 [items]; rows are numbered from 0 without gaps.

    Args:
      lengths: Tokens of each item [items], between 1 and ``capacity``.
      capacity: Tokens of a row.
      max_items: Most items in a row.
      key: Decides which of the items of one length come into which row.
    """
    remaining = np.bincount(lengths, minlength=capacity + 1).tolist()
    available = sum(1 << length for length, count in enumerate(remaining) if count)
    placed_lengths: list[int] = []
    placed_rows: list[int] = []
    row = 0
    while available:
        space, free_slots = capacity, max_items
        while free_slots:
            length = (available & ((2 << space) - 1)).bit_length() - 1
            if length < 1:
                break
            number = min(space // length, remaining[length], free_slots)
            placed_lengths += [length] * number
            placed_rows += [row] * number
            space -= number * length
            free_slots -= number
            remaining[length] -= number
            if not remaining[length]:
                available ^= 1 << length
        row += 1
    small = np.min_scalar_type(capacity)  # A stable sort of small integers is a fast radix sort.
    by_length = np.argsort(np.array(placed_lengths, small), kind="stable")
    items = counter_rng.permutation(key, len(lengths))
    items = items[np.argsort(lengths[items].astype(small), kind="stable")]
    row_of = np.empty(len(lengths), np.int64)
    row_of[items] = np.array(placed_rows, np.int64)[by_length]
    return row_of
