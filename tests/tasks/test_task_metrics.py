"""Scores against values worked out by hand or by a slow definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from albert_jax.errors import DataError
from albert_jax.tasks import metrics
from albert_jax.tasks.squad_metrics import (
    best_threshold,
    exact_match,
    normalise_answer,
    raw_scores,
    squad_v1,
    squad_v2,
    token_f1,
)


def test_classes() -> None:
    guessed, true = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 1])
    assert metrics.accuracy(guessed, true) == pytest.approx(4 / 6)
    assert metrics.f1(guessed, true) == pytest.approx(2 / 3)
    assert metrics.matthews(guessed, true) == pytest.approx(1 / 3)
    assert metrics.matthews(np.zeros(4), np.array([0, 1, 0, 1])) == 0
    assert metrics.f1(np.zeros(4), np.zeros(4)) == 0
    assert metrics.macro_f1(guessed, true, 2) == pytest.approx(2 / 3)


def test_matthews_of_two_classes_is_the_phi_coefficient() -> None:
    for p in itertools.product((0, 1), repeat=4):
        for t in ((0, 1, 1, 0), (1, 1, 1, 0)):
            p_, t_ = np.array(p), np.array(t)
            assert metrics.matthews(p_, t_) == pytest.approx(metrics.pearson(p_, t_))


def test_correlations() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.pearson(x, 3 - 2 * x) == pytest.approx(-1)
    assert metrics.pearson(x, np.ones(4)) == 0
    assert metrics.spearman(x, np.exp(x)) == pytest.approx(1)
    assert metrics.ranks(np.array([5, 1, 5, 2])).tolist() == [3.5, 1, 3.5, 2]
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert metrics.spearman(np.array([1, 2, 2, 3]), x) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


def test_groups_baseline_and_intervals() -> None:
    guessed, true = np.array([0, 1, 1]), np.array([0, 1, 0])
    found = metrics.by_group(guessed, true, ["high", "middle", "middle"])
    assert found["accuracy_high"] == 1
    assert found["accuracy_middle"] == 0.5
    assert metrics.majority([2, 1, 1, 2], 3).tolist() == [1, 1, 1]
    right = (np.arange(400) % 4 > 0).astype(float)
    value, low, high = metrics.bootstrap(lambda x: float(x.mean()), right)
    assert value == 0.75
    # The normal interval is 0.75 -+ 1.96 * 0.0217.
    assert low == pytest.approx(0.7076, abs=0.008)
    assert high == pytest.approx(0.7924, abs=0.008)
    assert metrics.bootstrap(lambda x: float(x.mean()), right) == (value, low, high)
    assert metrics.mean_and_error([1.0, 3.0]) == (2.0, 1.0)


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


def test_which_tags_name_spans() -> None:
    assert metrics.names_spans(["O", "B-A", "I-A", "S"])
    assert not metrics.names_spans(["NN", "VB"]) and not metrics.names_spans(["O", "B-A", "PER"])


def test_span_f1_counts_whole_spans() -> None:
    true = [["B-A", "I-A", "O"], ["B-B"]]
    found = metrics.span_f1([["B-A", "O", "O"], ["B-B"]], true)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["accuracy"] == 0.75


def test_bleu_is_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    text = ["the cat sat on the mat today"]
    assert metrics.bleu_chrf(text, text)["bleu"] == pytest.approx(100)
    assert metrics.bleu_chrf(["nothing alike whatsoever"], text)["bleu"] < 5


def test_answers_are_normalised() -> None:
    assert normalise_answer("The  U.S. Army, a\tfew") == "us army few"
    assert exact_match("the Cat!", "cat") == 1
    assert token_f1("the black cat", "cat sat") == pytest.approx(0.5)
    assert token_f1("", "") == 1
    assert token_f1("x", "") == 0


def test_squad_v1() -> None:
    gold = {"a": ["a cat", "the dog"], "b": ["red hat"], "c": ["x"]}
    found = squad_v1({"a": "dog", "b": "hat"}, gold)
    assert found["exact_match"] == pytest.approx(100 / 3)
    assert found["f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    with pytest.raises(DataError, match="'d'"):
        squad_v1({}, {"d": []})


def test_squad_v2_threshold_is_the_best_of_all() -> None:
    gold = {"a": ["cat"], "b": [], "c": ["hat"], "d": [], "e": ["x"]}
    said = {"a": "cat", "b": "dog", "c": "red hat", "d": "y", "e": "z"}
    nulls = {"a": -2.0, "b": 1.0, "c": -1.0, "d": -1.5, "e": 3.0}
    scores = raw_scores(said, gold)
    best, threshold = best_threshold(said, scores.f1, nulls, gold)
    by_limit = {
        limit: squad_v2(said, gold, nulls, limit)["f1"] for limit in [-9.0, *nulls.values()]
    }
    assert best == pytest.approx(max(by_limit.values()))
    assert by_limit[threshold] == pytest.approx(best)
    found = squad_v2(said, gold, nulls)
    assert found["f1"] == pytest.approx(best)
    assert found["best_f1_thresh"] == threshold
    assert (found["HasAns_total"], found["NoAns_total"], found["total"]) == (3, 2, 5)
    plain = squad_v2({"a": "cat", "b": ""}, gold)
    assert (plain["exact"], plain["total"]) == (100, 2)
