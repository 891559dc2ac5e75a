"""Packing: several short pairs share a row.

First fit, longest pairs first, worked row by row: a row takes the longest pair that is left and
fits, again and again. Which lengths are left is one integer used as a set of bits, so the next
pair is found in one operation whatever the number of pairs.
"""

from __future__ import annotations

import numpy as np

from albert_jax.data import counter_rng as random


def pairs_per_row(sequence_length: int) -> int:
    """K: most pairs in a packed row (64 at 512, 16 at 128), a shape of the compiled step.

    Heads on K places cost a thousandth of the layers; a smaller K would leave rows of very short
    pairs half empty.
    """
    return max(1, sequence_length // 8)


def pack(lengths: np.ndarray, capacity: int, most: int, key: int) -> np.ndarray:
    """Row number of each item, int64 [items]; rows are numbered from 0 without gaps.

    ``lengths`` [items] lie between 1 and ``capacity``; a row takes at most ``most`` items. Which
    of the items of one length comes into which row is random.
    """
    left = np.bincount(lengths, minlength=capacity + 1).tolist()
    available = sum(1 << length for length, count in enumerate(left) if count)
    placed_lengths: list[int] = []
    placed_rows: list[int] = []
    row = 0
    while available:
        space, room = capacity, most
        while room:
            length = (available & ((2 << space) - 1)).bit_length() - 1
            if length < 1:
                break
            number = min(space // length, left[length], room)
            placed_lengths += [length] * number
            placed_rows += [row] * number
            space -= number * length
            room -= number
            left[length] -= number
            if not left[length]:
                available ^= 1 << length
        row += 1
    small = np.min_scalar_type(capacity)  # A stable sort of small integers is a radix sort.
    by_length = np.argsort(np.array(placed_lengths, small), kind="stable")
    items = random.permutation(key, len(lengths))
    items = items[np.argsort(lengths[items].astype(small), kind="stable")]
    row_of = np.empty(len(lengths), np.int64)
    row_of[items] = np.array(placed_rows, np.int64)[by_length]
    return row_of
