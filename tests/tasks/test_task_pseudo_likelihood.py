"""Pseudo-log-likelihood: what is hidden, and what pairs score."""

from __future__ import annotations

import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.errors import DataError
from albert_jax.inference import pseudo_likelihood as pl
from albert_jax.tasks.examples import MinimalPair


class Pieces(Words):
    """Letters; upper-case ones begin words."""

    def __init__(self):
        super().__init__()
        self.starts_word = np.array([True] * 31 + [False] * 29)

    def encode(self, texts):
        return [
            np.array([5 + ord(c) - 65 if c.isupper() else 31 + ord(c) - 97 for c in t], np.int32)
            for t in texts
        ]


def test_the_rest_of_a_word_is_hidden_too() -> None:
    vocabulary = Pieces()
    places = pl.masked_places(vocabulary, vocabulary.starts_word, ["AbcD"], 8)
    assert [place.hidden for place in places] == [(1, 2, 3), (2, 3), (3,), (4,)]
    (part, batch), (rest, last) = pl.place_batches(vocabulary, places, 8, 3)
    assert (len(part), len(rest)) == (3, 1)
    assert batch["input_ids"][1].tolist() == [2, 5, 4, 4, 8, 3, 0, 0]
    assert batch["mlm_positions"].tolist() == [[1], [2], [3]]
    assert batch["mlm_labels"].tolist() == [[5], [32], [33]]
    assert last["mlm_weights"].tolist() == [[1], [0], [0]]


def test_scores_add_up_per_sentence() -> None:
    vocabulary = Pieces()
    places = pl.masked_places(vocabulary, vocabulary.starts_word, ["Ab", "C"], 8)
    found = pl.sentence_scores(places, np.array([-1.0, -2.0, -4.0]), 2)
    assert found.tolist() == [-3, -4]
    with pytest.raises(DataError, match="sentence 2 has 7 tokens, rows of 8"):
        pl.masked_places(vocabulary, vocabulary.starts_word, ["A", "Abcdefg"], 8)
    with pytest.raises(DataError, match="sentence 1 has 0 tokens"):
        pl.masked_places(vocabulary, vocabulary.starts_word, [""], 8)


def test_pairs() -> None:
    pairs = [MinimalPair(f"f:{i}", "a", "b", "xy"[i % 2]) for i in range(4)]
    found = pl.pair_accuracy(pairs, np.array([-1, -1, -1, -2.0]), np.array([-2, -2, -1, -1.0]))
    assert found["all"].value == 0.625
    assert found["x"].value == 0.75
    assert found["y"].value == 0.5
    assert found["all"].low <= 0.625 <= found["all"].high
