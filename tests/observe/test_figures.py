"""Figures of single measurements say what they show."""

from __future__ import annotations

import numpy as np

from albert_jax.observe import figures


def test_what_is_the_same_for_all_rows_is_said_instead_of_drawn() -> None:
    values = {
        "tokens per row": np.array([24, 24, 24]),
        "tokens per sequence": np.array([8, 16, 24]),
    }
    order = {"original": 0.5, "swapped": 0.4, "not predicted": 0.1}
    picture = figures.row_statistics("tiny, phase 0", values, {"sentence order": order}).decode()
    assert ">tiny, phase 0<" in picture and ">tokens per row: always 24<" in picture
    assert ">tokens per row<" not in picture and ">tokens per sequence<" in picture
    assert ">swapped<" in picture and ">40.0%<" in picture


def test_a_confusion_matrix_has_names_counts_and_shares() -> None:
    picture = figures.confusion_matrix(
        "run", "of dev.tsv", ("\u6d88\u6781", "$x"), np.array([[3, 1], [0, 0]])
    )
    text = picture.decode()
    for part in (">run<", ">of dev.tsv<", ">\u6d88\u6781<", ">$x<", ">75%<", ">true label<"):
        assert part in text, part
    assert figures.confusion_matrix("", "", "ab", np.eye(2, dtype=int)) == figures.confusion_matrix(
        "", "", "ab", np.eye(2, dtype=int)
    )


def test_the_accuracy_of_each_set_stands_beside_chance() -> None:
    found = {"all": (0.8, 0.7, 0.9), "agreement": (1.0, 1.0, 1.0)}
    text = figures.minimal_pair_accuracies("pairs", found, {"all": 10, "agreement": 4}).decode()
    assert ">agreement, pairs: 4<" in text and "chance" in text
