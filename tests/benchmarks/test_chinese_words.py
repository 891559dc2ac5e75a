"""How the program about words of Chinese counts."""

from __future__ import annotations

import numpy as np


def test_a_word_is_right_if_all_its_tokens_are(benchmark):
    """Two words of two tokens in a row, the second one with a wrong token, and one unused place."""
    program = benchmark("chinese_words")
    batch = {
        "word_starts": np.array([[0, 1, 0, 1, 0, 0]], bool),
        "segment_ids": np.array([[1, 1, 1, 1, 1, 0]]),
        "mlm_positions": np.array([[1, 2, 3, 4, 0]]),
        "mlm_weights": np.array([[1.0, 1.0, 1.0, 1.0, 0.0]]),
    }
    right = np.array([[True, True, True, False, True]])
    assert program.words_right(batch, right).tolist() == [True, False]
