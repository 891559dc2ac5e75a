"""Choice of masked tokens: the original's n-gram masking, for whole batches at once.

The method is that of create_masked_lm_predictions in google-research/albert. The words of a
sequence are visited in random order, and at each an n-gram length is drawn. An n-gram that exceeds
the rest of the budget is shortened, and dropped if even a single word is too long. One that
overlaps a masked word is dropped as well. Because this is sequential within a sequence, the loop
here runs over the visits, and each round handles one visit of every sequence with budget left.

Shapes: N sequences, W words of all sequences, T tokens of their text without special tokens, M
n-grams. All arrays are int64 unless stated otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from albert_jax.data import counter_rng


class Ngrams(NamedTuple):
    """The chosen n-grams, in no particular order."""

    first: np.ndarray  # [M]: first word of each, numbered through all sequences
    words: np.ndarray  # [M]: words in each
    lengths: np.ndarray
    """[M]: n after shortening to the budget; above ``words`` where the sequence ends."""


def ngram_probabilities(max_ngram: int, *, favor_shorter: bool) -> np.ndarray:
    """p(n) for n = 1 to max_ngram, float64: in proportion to 1/n, or in the reverse order."""
    weights = 1.0 / np.arange(1, max_ngram + 1)
    return (weights if favor_shorter else weights[::-1]) / weights.sum()


def budgets(lengths: np.ndarray, row: np.ndarray, rates: np.ndarray, slots: int) -> np.ndarray:
    """Tokens to mask in each sequence [N], at least 1 and together at most ``slots`` in a row.

    ``lengths`` [N] include the special tokens, as in the original, ``row`` [N] ascends, and
    ``rates`` [N] are the float64 rates of the rows; a rate of 0 masks nothing. The budget of a row
    is divided by rounding its running sum, so that many short sequences do not each round up. A
    sequence alone in its row has the original's min(slots, max(1, round(rate * length))).
    """
    start = np.searchsorted(row, row)
    ends = np.cumsum(lengths)
    through = ends - (ends - lengths)[start]
    share = np.rint(through * rates) - np.rint((through - lengths) * rates)
    share = np.where(rates > 0, np.maximum(share, 1), 0).astype(np.int64)
    sums = np.cumsum(share)
    through = np.minimum(sums - (sums - share)[start], slots)
    before = np.concatenate([[0], through[:-1]])
    return through - np.where(start == np.arange(len(row)), 0, before)


def choose_ngrams(
    word_sizes: np.ndarray,
    words: np.ndarray,
    budget: np.ndarray,
    keys: np.ndarray,
    *,
    max_ngram: int,
    favor_shorter: bool,
) -> Ngrams:
    """Chooses n-grams of whole words that do not leave their sequence.

    The arguments are the tokens of each word [W], and of each sequence its words, its budget of
    tokens to mask, which is met wherever the words allow it, and the uint64 key of its draws, [N].
    """
    total = len(word_sizes)
    ends = np.cumsum(words)
    starts = ends - words
    starts_of = np.repeat(starts, words)
    number = np.arange(total) - starts_of
    draws = counter_rng.bits(np.repeat(keys, words), number)
    visits = _visiting_order(draws, number, words)
    visits += starts_of
    offsets = np.zeros(total + max_ngram + 1, np.int64)
    np.cumsum(word_sizes, out=offsets[1 : total + 1])
    offsets[total + 1 :] = offsets[total]
    thresholds = np.cumsum(ngram_probabilities(max_ngram, favor_shorter=favor_shorter))[:-1]
    covered = np.zeros(total + max_ngram, bool)

    chosen = [(np.zeros(0, np.int64),) * 3]
    remaining = np.where(words > 0, budget, 0)
    # A word is visited once, so at high rates words are left over that would fit. A second round
    # of visits takes them one by one. At 15% the first round meets the budget.
    for longest in (max_ngram, 1):
        active = np.flatnonzero(remaining > 0)
        visit, stop, left = starts[active], ends[active], remaining[active]
        while len(visit):
            first = visits[visit]
            lengths = np.ones(len(first), np.int64)
            if longest > 1:
                chance = (draws[first] & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
                lengths = np.searchsorted(thresholds, chance, side="right") + 1
            n = np.minimum(lengths, stop - first)
            size = _shorten(n, lengths, first, offsets, left)
            free = size <= left
            for k in range(longest):
                free &= ~(covered[first + k] & (k < n))
            taken = np.flatnonzero(free)
            first, n = first[taken], n[taken]
            for k in range(longest):
                covered[first[n > k] + k] = True
            chosen.append((first, n, lengths[taken]))
            left[taken] -= size[taken]
            visit += 1
            going = (left > 0) & (visit < stop)
            if not going.all():
                remaining[active] = left
                active, visit, stop, left = active[going], visit[going], stop[going], left[going]
    return Ngrams(*(np.concatenate(column) for column in zip(*chosen, strict=True)))


def _shorten(
    n: np.ndarray, lengths: np.ndarray, first: np.ndarray, offsets: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Shortens n-grams, in place, to what is left of their budgets; returns their tokens."""
    begin = offsets[first]
    size = offsets[first + n] - begin
    over = np.flatnonzero((size > left) & (n > 1))
    while len(over):
        n[over] -= 1
        lengths[over] = n[over]
        size[over] = offsets[first[over] + n[over]] - begin[over]
        over = over[(size[over] > left[over]) & (n[over] > 1)]
    return size


def _visiting_order(draws: np.ndarray, number: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Numbers of the words of each sequence in random order [W]."""
    # One sort of integers whose bits hold the sequence, random bits and the word's number from
    # high to low is several times faster than an argsort.
    low = np.uint64(max(int(words.max(initial=1)) - 1, 1).bit_length())
    high = np.uint64(max(len(words) - 1, 1).bit_length())
    sequence = np.arange(len(words), dtype=np.uint64) << (np.uint64(64) - high)
    keys = draws >> high
    keys |= np.repeat(sequence, words)
    keys >>= low
    keys <<= low
    keys |= number.astype(np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low) - np.uint64(1)
    return keys.astype(np.int64)


def word_sizes_of(starts_word: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each word [W] and words of each sequence [N].

    ``starts_word`` is bool [T], True at the first token of each sequence; ``sizes`` [N] are tokens.
    """
    begin = np.flatnonzero(starts_word)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    words = np.diff(np.searchsorted(begin, bounds))
    return np.diff(begin, append=len(starts_word)), words


def masked_tokens(ngrams: Ngrams, word_sizes: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Numbers of the chosen tokens among all T, ascending, of those that are allowed, bool [T]."""
    marks = np.zeros(len(word_sizes) + 1, np.int8)
    marks[ngrams.first] += 1
    marks[ngrams.first + ngrams.words] -= 1
    covered = np.cumsum(marks[:-1], dtype=np.int8).astype(bool)
    return np.flatnonzero(np.repeat(covered, word_sizes) & allowed)


def replace(
    labels: np.ndarray,
    draws: np.ndarray,
    mask_id: int,
    vocab_size: int,
    coins: np.ndarray | None = None,
) -> np.ndarray:
    """The ids at masked positions: [MASK] in 80%, the token itself in 10%, any id in 10%.

    As in the original, the id of a special token may be drawn. ``draws`` are random bits, and
    ``coins`` those that choose among the three, by default the same.
    """
    chance = counter_rng.uniform(draws if coins is None else coins)
    other = counter_rng.below(counter_rng.bits(draws, 0), vocab_size)
    return np.where(chance < 0.8, mask_id, np.where(chance < 0.9, labels, other))
