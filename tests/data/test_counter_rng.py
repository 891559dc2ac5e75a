"""Keyed random numbers: fixed for ever, and uniform."""

from __future__ import annotations

import numpy as np

from albert_jax.data import counter_rng


def test_values_stay_what_they_are():
    assert counter_rng.key(1, 2, 3) == 15020427595393229491
    assert counter_rng.bits(counter_rng.key(7), np.arange(3)).tolist() == [
        13309476754707697221,
        11984929618412882174,
        10134167572453724827,
    ]
    assert counter_rng.permutation(5, 8).tolist() == [3, 4, 2, 5, 0, 7, 1, 6]


def test_a_draw_depends_on_its_key_and_counter_only():
    whole = counter_rng.bits(counter_rng.key(1, 2), np.arange(1000))
    assert (whole[[5, 700]] == counter_rng.bits(counter_rng.key(1, 2), np.array([5, 700]))).all()
    assert counter_rng.key(1, 2) != counter_rng.key(2, 1) and counter_rng.key(
        0, 1
    ) != counter_rng.key(1, 0)
    keys = counter_rng.bits(3, np.arange(4))
    assert (counter_rng.bits(keys, 9)[2] == counter_rng.bits(int(keys[2]), np.array([9]))[0]).all()


def test_draws_are_uniform_and_uncorrelated():
    first = counter_rng.bits(counter_rng.key(1), np.arange(200_000))
    second = counter_rng.bits(counter_rng.key(2), np.arange(200_000))
    for bits in (first, second, first ^ second, first[1:] ^ first[:-1]):
        ones = np.bitwise_count(bits).sum() / (64 * len(bits))
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(64 * len(bits))
    u = counter_rng.uniform(first)
    assert abs(u.mean() - 0.5) < 5 * 0.289 / np.sqrt(len(u)) and 0 <= u.min() and u.max() < 1
    counts = np.bincount(counter_rng.below(first, 7), minlength=7)
    expected = len(first) / 7
    assert len(counts) == 7 and ((counts - expected) ** 2 / expected).sum() < 30
    assert sorted(counter_rng.permutation(3, 1000).tolist()) == list(range(1000))
