"""Scores against values worked out by hand or by a slow definition."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest

from albert_jax.tasks.multiple_choice import MultipleChoice, MultipleChoiceConfig
from albert_jax.tasks.support import metrics
from albert_jax.tasks.support.choice_files import ChoiceExample


def test_classification_scores() -> None:
    guessed, true = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 1])
    scores = metrics.classification(guessed, true, 2)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["matthews"] == pytest.approx(1 / 3)
    constant = metrics.classification(np.zeros(4, int), np.array([0, 1, 0, 1]), 2)
    assert constant == {"accuracy": 0.5, "f1": 0.0, "matthews": 0.0}
    # Class 2 occurs nowhere and is left out of the mean over three classes.
    assert metrics.classification(guessed, true, 3)["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_scores_are_those_of_scikit_learn(classes: int, monkeypatch) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef

    rng = np.random.default_rng(classes)
    guessed, true = rng.integers(0, classes, (2, 400))
    guessed = np.where(rng.random(400) < 0.5, true, guessed)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)  # It takes seconds to import.
    scores = metrics.classification(guessed, true, classes)
    average: Any = "binary" if classes == 2 else "macro"
    assert scores["f1"] == pytest.approx(f1_score(true, guessed, average=average), abs=1e-12)
    assert scores["matthews"] == pytest.approx(matthews_corrcoef(true, guessed), abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_one_class_alone_is_scored_without_a_warning() -> None:
    scores = metrics.classification(np.zeros(3, int), np.zeros(3, int), 2)
    assert scores == {"accuracy": 1.0, "f1": 0.0, "matthews": 0.0}


def test_matthews_of_two_classes_is_the_phi_coefficient() -> None:
    for p in itertools.product((0, 1), repeat=4):
        for t in ((0, 1, 1, 0), (1, 1, 1, 0)):
            predicted, true = np.array(p), np.array(t)
            matthews = metrics.classification(predicted, true, 2)["matthews"]
            assert matthews == pytest.approx(metrics.correlations(predicted, true)["pearson"])


def test_correlations() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.correlations(x, 3 - 2 * x)["pearson"] == pytest.approx(-1)
    assert metrics.correlations(x, np.ones(4)) == {"pearson": 0.0, "spearman": 0.0}
    assert metrics.correlations(x, np.exp(x))["spearman"] == pytest.approx(1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    ranked = metrics.correlations(np.array([1, 2, 2, 3]), x)["spearman"]
    assert ranked == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_groups_and_baseline() -> None:
    examples = [
        ChoiceExample("f", "c", ("a", "b"), label, group)
        for label, group in ((0, "high"), (1, "middle"), (0, "middle"))
    ]
    task = MultipleChoice(MultipleChoiceConfig())
    scores = task.score(examples, [{"choice": 0}, {"choice": 1}, {"choice": 1}])
    assert scores == {"accuracy": 2 / 3, "accuracy_high": 1, "accuracy_middle": 0.5}
    assert task.baseline(examples, examples)["accuracy_middle"] == 0.5
    assert metrics.commonest([2, 1, 1, 2]) == 1


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-A I-A O B-B", {("A", 0, 1), ("B", 3, 3)}),
        ("B-A B-A I-A", {("A", 0, 0), ("A", 1, 2)}),
        ("I-A I-A I-B", {("A", 0, 1), ("B", 2, 2)}),
        ("S-A B-B E-B I-B", {("A", 0, 0), ("B", 1, 2), ("B", 3, 3)}),
        ("O O", set()),
        ("B I O B", {("_", 0, 1), ("_", 3, 3)}),
        ("S B E O I", {("_", 0, 0), ("_", 1, 2), ("_", 4, 4)}),
    ],
)
def test_tag_spans(tags: str, spans: set) -> None:
    assert metrics.tag_spans(tags.split()) == spans


def test_which_tags_mark_spans() -> None:
    assert metrics.are_span_tags(["O", "B-A", "I-A", "S"])
    assert not metrics.are_span_tags(["NN", "VB"]) and not metrics.are_span_tags(
        ["O", "B-A", "PER"]
    )


def test_span_f1_counts_whole_spans() -> None:
    true = [["B-A", "I-A", "O"], ["B-B"]]
    found = metrics.span_f1([["B-A", "O", "O"], ["B-B"]], true)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["accuracy"] == 0.75
