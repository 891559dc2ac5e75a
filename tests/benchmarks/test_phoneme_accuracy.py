"""The n-grams that a phoneme model is measured against."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("phonemes")


def test_the_commonest_label_of_a_context(program):
    contexts, labels = np.array([5, 5, 5, 9, 9, 2]), np.array([1, 3, 3, 4, 7, 0])
    found = program.MostLikely(contexts, labels)
    assert found(np.array([5, 9, 2, 1])).tolist() == [3, 4, 0, -1]


def test_unknown_contexts_are_shortened(program):
    long, short = np.array([11, 12, 13]), np.array([1, 1, 1])
    model = program.BackOff([long, short], np.array([4, 6, 6]))
    assert model.accuracy([np.array([11, 99]), np.array([1, 1])], np.array([4, 6])) == 1.0


def test_windows_are_what_the_row_shows(program):
    """Masks stay in the window around a place, and the left side has the true symbols."""
    batch = {
        "input_ids": np.array([[3, 9, 9, 4, 5, 0]]),
        "segment_ids": np.array([[1, 1, 1, 1, 1, 0]]),
        "mlm_positions": np.array([[1, 2, 0]]),
        "mlm_labels": np.array([[7, 8, 0]]),
        "mlm_weights": np.array([[1.0, 1.0, 0.0]]),
        "word_labels": np.array([[2, 2, 0]]),
    }
    contexts, symbols, words = program.around(batch, 10)
    windows = np.array([[10, 3, 9, 9, 4], [3, 9, 9, 4, 5]])
    assert contexts[0].tolist() == program.numbers(windows, 10).tolist()
    assert contexts[2].tolist() == [9, 9]
    assert symbols.tolist() == [7, 8] and words.tolist() == [2, 2]
    before = program.left(batch, 10)
    assert (
        before[0].tolist()
        == program.numbers(np.array([[10, 10, 10, 3], [10, 10, 3, 7]]), 10).tolist()
    )
    assert before[4].tolist() == [0, 0]
