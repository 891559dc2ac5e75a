"""Intervals of scores: against numbers by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.evaluation.intervals import bootstrap, mean_of_shares, share


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    correct = (np.arange(400) % 4 > 0).astype(float)
    value, low, high = bootstrap(lambda x: float(x.mean()), correct)
    assert value == 0.75
    # The normal interval is 0.75 -+ 1.96 * 0.0217.
    assert low == pytest.approx(0.7076, abs=0.008)
    assert high == pytest.approx(0.7924, abs=0.008)
    assert bootstrap(lambda x: float(x.mean()), correct) == (value, low, high)


def test_intervals_hold_what_they_promise() -> None:
    """Of many files with known shares, about 95 % have them inside; a set of zeros has a width."""
    assert share(0, 500).low == 0 and 0.005 < share(0, 500).high < 0.01
    assert share(8, 10)[1:] == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, by hand
    rng = np.random.default_rng(0)
    truth, sizes = np.array([0.02, 0.5, 0.7, 0.95, 0.99]), np.array([40, 30, 50, 20, 60])
    inside = []
    for _ in range(2000):
        found = mean_of_shares(
            [share(*row) for row in zip(rng.binomial(sizes, truth), sizes, strict=True)]
        )
        inside.append(found.low <= truth.mean() <= found.high)
    assert 0.93 < np.mean(inside) < 0.98
    assert mean_of_shares([share(3, 7)]) == pytest.approx(share(3, 7))
