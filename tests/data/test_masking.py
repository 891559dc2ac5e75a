"""Masks: each rule by itself, and the whole against a sequential model of the original."""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.data import counter_rng
from albert_jax.data.batches import masking


def words_of(pairs=300, seed=0, most=60):
    rng = np.random.default_rng(seed)
    words = rng.integers(1, most, pairs)
    return rng.choice([1, 1, 1, 2, 3, 5], words.sum()), words


def choose(sizes, words, budget, seed=0, **options):
    keys = counter_rng.bits(counter_rng.key(seed), np.arange(len(words)))
    options = {"max_ngram": 3, "favor_shorter": True} | options
    return masking.choose_ngrams(sizes, words, np.asarray(budget), keys, **options)


def test_probabilities():
    assert masking.ngram_probabilities(3, favor_shorter=True) == pytest.approx(
        [6 / 11, 3 / 11, 2 / 11]
    )
    assert masking.ngram_probabilities(3, favor_shorter=False) == pytest.approx(
        [2 / 11, 3 / 11, 6 / 11]
    )


def test_budgets_round_as_the_original_does():
    lengths = np.array([3, 5, 10, 30, 50, 64, 128])
    expected = [min(10, max(1, round(n * 0.15))) for n in lengths.tolist()]
    rows = np.arange(7)
    assert masking.budgets(lengths, rows, np.full(7, 0.15), 10).tolist() == expected
    assert masking.budgets(lengths, rows, np.zeros(7), 10).tolist() == [0] * 7


def test_budgets_of_packed_rows_stay_within_the_slots():
    rng = np.random.default_rng(0)
    row = np.repeat(np.arange(200), rng.integers(1, 17, 200))
    lengths = rng.integers(5, 32, len(row))
    slots = 77
    share = masking.budgets(lengths, row, np.full(len(row), 0.15), slots)
    assert share.min() >= 0 and np.abs(share - 0.15 * lengths).max() <= 1.0
    sums, total = np.bincount(row, share), np.bincount(row, lengths)
    assert sums.max() <= slots
    assert np.abs(sums - np.minimum(total * 0.15, slots)).max() <= 2
    tight = masking.budgets(np.full(9, 4), np.zeros(9, int), np.full(9, 0.15), 5)
    assert tight.sum() == 5


@pytest.mark.parametrize("max_ngram", [1, 3, 7])
def test_ngrams_are_disjoint_whole_and_within_the_budget(max_ngram):
    sizes, words = words_of()
    budget = np.random.default_rng(1).integers(0, 25, len(words))
    found = choose(sizes, words, budget, max_ngram=max_ngram)
    pair = np.repeat(np.arange(len(words)), words)
    assert (pair[found.first] == pair[found.first + found.words - 1]).all()
    covered = np.zeros(len(sizes), int)
    for first, count in zip(found.first, found.words, strict=True):
        covered[first : first + count] += 1
    assert covered.max() == 1 and found.words.max() == max_ngram
    assert (found.words <= found.lengths).all()
    used = np.bincount(pair, covered * sizes, minlength=len(words))
    assert (used <= budget).all()
    # Short of the budget only where no uncovered word would fit any more.
    smallest = np.full(len(words), 99)
    np.minimum.at(smallest, pair[covered == 0], sizes[covered == 0])
    assert (budget - used < smallest).all()


def test_masked_tokens_are_those_of_the_chosen_words():
    starts = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0], bool)
    sizes, words = masking.word_sizes_of(starts, np.array([6, 3]))
    assert sizes.tolist() == [2, 1, 3, 1, 2] and words.tolist() == [3, 2]
    ngrams = masking.Ngrams(np.array([4, 1]), np.array([1, 2]), np.array([1, 2]))
    allowed = np.ones(9, bool)
    assert masking.masked_tokens(ngrams, sizes, allowed).tolist() == [2, 3, 4, 5, 7, 8]
    allowed[4] = False
    assert masking.masked_tokens(ngrams, sizes, allowed).tolist() == [2, 3, 5, 7, 8]


def sequential(sizes, budget, probabilities, rng):
    """The original's process for one pair; (n, first word) of each n-gram."""
    total, left, covered, taken = len(sizes), budget, set(), []
    for first in rng.permutation(total).tolist():
        if left <= 0:
            break
        n = int(rng.choice(len(probabilities), p=probabilities)) + 1
        while sum(sizes[first : first + n]) > left and n > 1:
            n -= 1
        span = range(first, min(first + n, total))
        if sum(sizes[k] for k in span) > left or covered.intersection(span):
            continue
        covered.update(span)
        left -= sum(sizes[k] for k in span)
        taken.append((n, first))
    return taken


@pytest.mark.parametrize("favor_shorter", [True, False])
def test_chosen_lengths_and_places_are_those_of_the_sequential_process(favor_shorter):
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 1, 2, 3], 30)
    pairs, budget = 3000, 9
    found = choose(
        np.tile(sizes, pairs),
        np.full(pairs, 30),
        np.full(pairs, budget),
        favor_shorter=favor_shorter,
    )
    theirs = []
    for _ in range(pairs):
        theirs += sequential(
            sizes.tolist(), budget, masking.ngram_probabilities(3, favor_shorter=favor_shorter), rng
        )
    for ours, other in (
        (found.lengths, [n for n, _ in theirs]), (found.first % 30, [k for _, k in theirs]),
    ):  # fmt: skip
        a = np.bincount(ours, minlength=31) / pairs
        b = np.bincount(other, minlength=31) / pairs
        assert np.abs(a - b).max() < 5 * np.sqrt(2 * max(a.max(), 0.3) / pairs)


def test_choices_depend_on_the_pair_s_own_key_only():
    sizes, words = words_of()
    keys = counter_rng.bits(1, np.arange(len(words)))
    budget = np.full(len(words), 8)
    whole = masking.choose_ngrams(sizes, words, budget, keys, max_ngram=3, favor_shorter=True)
    offset = int(words[:7].sum())
    part = slice(offset, offset + int(words[7]))
    alone = masking.choose_ngrams(
        sizes[part], words[7:8], budget[7:8], keys[7:8], max_ngram=3, favor_shorter=True
    )
    inside = (whole.first >= part.start) & (whole.first < part.stop)
    assert sorted(zip(whole.first[inside] - offset, whole.words[inside], strict=True)) == sorted(
        zip(alone.first, alone.words, strict=True)
    )


def test_everything_can_be_masked():
    sizes, words = words_of(50)
    found = choose(sizes, words, np.bincount(np.repeat(np.arange(50), words), sizes).astype(int))
    assert found.words.sum() == len(sizes)


def test_replacement_shares():
    labels = np.full(100_000, 7)
    seen = masking.replace(labels, counter_rng.bits(3, np.arange(len(labels))), 4, 50)
    assert abs((seen == 4).mean() - 0.8 - 0.1 / 50) < 0.006
    assert abs((seen == 7).mean() - 0.1 - 0.1 / 50) < 0.005
    others = np.bincount(seen[(seen != 4) & (seen != 7)], minlength=50)
    assert (others > 0).sum() == 48  # every other id of the vocabulary, special ones too
