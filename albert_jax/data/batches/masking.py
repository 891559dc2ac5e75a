"""Which tokens are masked: the original's n-gram masking, for whole batches at once.

The process is that of create_masked_lm_predictions of google-research/albert: the words of a pair
are visited in random order; at each an n-gram length is drawn; an n-gram that would exceed what is
left of the budget is shortened, and given up if a single word is too long; one that overlaps a
masked word is given up. That process is sequential within a pair, so the loop here runs over the
visits, and each round handles one visit of every pair that still has a budget.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from albert_jax.data import counter_rng as random

Law = Literal["inverse", "uniform", "proportional"]


class Ngrams(NamedTuple):
    """What was chosen, in no particular order."""

    first: np.ndarray
    """int64 [n-grams]: first word of each, numbered over all pairs."""
    words: np.ndarray
    """int64 [n-grams]: words in each."""
    lengths: np.ndarray
    """int64 [n-grams]: n after shortening to the budget; above ``words`` where the pair ends."""


def ngram_probabilities(max_ngram: int, law: Law) -> np.ndarray:
    """p(n) for n = 1 to max_ngram: 1/n, equal, or 1/n reversed (the original's other choice)."""
    inverse = 1.0 / np.arange(1, max_ngram + 1)
    weights = {"inverse": inverse, "uniform": np.ones(max_ngram), "proportional": inverse[::-1]}
    return weights[law] / weights[law].sum()


def budgets(lengths: np.ndarray, rates: np.ndarray | float, slots: int) -> np.ndarray:
    """Tokens to mask in each row of one pair: min(slots, max(1, round(rate * length))).

    ``lengths`` count the special tokens, as in the original. A rate of 0 masks nothing.
    """
    wanted = np.maximum(np.rint(lengths * np.asarray(rates)), 1)
    return np.where(np.asarray(rates) > 0, np.minimum(wanted, slots), 0).astype(np.int64)


def shared_budgets(
    lengths: np.ndarray, row: np.ndarray, rates: np.ndarray, slots: int
) -> np.ndarray:
    """Tokens to mask in each pair of packed rows; together at most ``slots`` in a row.

    ``row`` [pairs] ascends; ``rates`` [pairs] is that of each pair's row. The budget of a row is
    spread by rounding its running sum, so that many short pairs do not each round up.
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
    law: Law,
) -> Ngrams:
    """Chooses n-grams of whole words in every pair.

    ``word_sizes`` int64 [all words]: tokens of each word, pair after pair; ``words`` int64
    [pairs]: words of each pair; ``budget`` int64 [pairs]: tokens to mask; ``keys`` uint64
    [pairs]. N-grams do not leave their pair. The budget is met wherever words allow it.
    """
    total = len(word_sizes)
    ends = np.cumsum(words)
    starts = ends - words
    starts_of = np.repeat(starts, words)
    number = np.arange(total) - starts_of
    drawn = random.bits(np.repeat(keys, words), number)
    visits = _visiting_order(drawn, number, words)
    visits += starts_of
    offsets = np.zeros(total + max_ngram + 1, np.int64)
    np.cumsum(word_sizes, out=offsets[1 : total + 1])
    offsets[total + 1 :] = offsets[total]
    steps = np.cumsum(ngram_probabilities(max_ngram, law))[:-1]
    covered = np.zeros(total + max_ngram, bool)

    found = [(np.zeros(0, np.int64),) * 3]
    left_of = np.where(words > 0, budget, 0)
    # A word is visited once, so at high rates some that would fit stay over: a second visit takes
    # them one by one. At 15% the first has met the budget.
    for longest in (max_ngram, 1):
        active = np.flatnonzero(left_of > 0)
        at, stop, left = starts[active], ends[active], left_of[active]
        while len(at):
            first = visits[at]
            n, lengths = _draw_lengths(drawn[first], steps, longest, stop - first)
            begin = offsets[first]
            size = offsets[first + n] - begin
            over = np.flatnonzero((size > left) & (n > 1))
            while len(over):
                n[over] -= 1
                lengths[over] = n[over]
                size[over] = offsets[first[over] + n[over]] - begin[over]
                over = over[(size[over] > left[over]) & (n[over] > 1)]
            free = size <= left
            for k in range(longest):
                free &= ~(covered[first + k] & (k < n))
            took = np.flatnonzero(free)
            first, n = first[took], n[took]
            for k in range(longest):
                covered[first[n > k] + k] = True
            found.append((first, n, lengths[took]))
            left[took] -= size[took]
            at += 1
            going = (left > 0) & (at < stop)
            if not going.all():
                left_of[active] = left
                active, at, stop, left = active[going], at[going], stop[going], left[going]
    return Ngrams(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _draw_lengths(
    draws: np.ndarray, steps: np.ndarray, longest: int, words_left: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Words of the n-gram at each visited word (no more than its pair has), and the drawn n."""
    if longest == 1:
        return np.ones(len(draws), np.int64), np.ones(len(draws), np.int64)
    low = (draws & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
    lengths = np.searchsorted(steps, low, side="right") + 1
    return np.minimum(lengths, words_left), lengths


def _visiting_order(drawn: np.ndarray, number: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Numbers of the words of each pair in random order, int64 [all words].

    One sort of integers that hold the pair, random bits and the word's number from top to bottom:
    several times faster than an argsort.
    """
    low = np.uint64(max(int(words.max(initial=1)) - 1, 1).bit_length())
    high = np.uint64(max(len(words) - 1, 1).bit_length())
    pair = np.arange(len(words), dtype=np.uint64) << (np.uint64(64) - high)
    keys = drawn >> high
    keys |= np.repeat(pair, words)
    keys >>= low
    keys <<= low
    keys |= number.astype(np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low) - np.uint64(1)
    return keys.astype(np.int64)


def word_sizes_of(starts_word: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words of pairs from the tokens that start one.

    ``starts_word`` bool [tokens] is over the text of all pairs (without special tokens), with
    the first token of each pair True; ``sizes`` int64 [pairs] are their tokens. Returns tokens
    of each word, and words of each pair.
    """
    begin = np.flatnonzero(starts_word)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    words = np.diff(np.searchsorted(begin, bounds))
    return np.diff(begin, append=len(starts_word)), words


def masked_tokens(ngrams: Ngrams, word_sizes: np.ndarray) -> np.ndarray:
    """Numbers of the chosen tokens over the text of all pairs, ascending."""
    marks = np.zeros(len(word_sizes) + 1, np.int8)
    marks[ngrams.first] += 1
    marks[ngrams.first + ngrams.words] -= 1
    covered = np.cumsum(marks[:-1], dtype=np.int8).astype(bool)
    return np.flatnonzero(np.repeat(covered, word_sizes))


def replace(labels: np.ndarray, draws: np.ndarray, mask_id: int, vocab_size: int) -> np.ndarray:
    """What the model sees at masked places: [MASK] 80%, the token itself 10%, any id 10%.

    ``draws`` uint64 [tokens] are random bits of each token; any id of the vocabulary may come,
    special ones too, as in the original.
    """
    chance = random.uniform(draws)
    other = random.below(random.bits(draws, 0), vocab_size)
    return np.where(chance < 0.8, mask_id, np.where(chance < 0.9, labels, other))
