"""The scores of the official SQuAD scripts."""

from __future__ import annotations

import pytest

from albert_jax.tasks.support.squad_metrics import (
    best_threshold,
    exact_match,
    normalize_answer,
    squad_v1,
    squad_v2,
    token_f1,
)


def test_answers_are_normalized() -> None:
    assert normalize_answer("The  U.S. Army, a\tfew") == "us army few"
    assert exact_match("the Cat!", "cat") == 1
    assert token_f1("the black cat", "cat sat") == pytest.approx(0.5)
    assert token_f1("", "") == 1
    assert token_f1("x", "") == 0


def test_squad_v1() -> None:
    gold = {"a": ["a cat", "the dog"], "b": ["red hat"], "c": ["x"]}
    scores = squad_v1({"a": "dog", "b": "hat"}, gold)
    assert scores["exact_match"] == pytest.approx(100 / 3)
    assert scores["f1"] == pytest.approx(100 * (1 + 2 / 3) / 3)
    # Version 1.1 has no empty answers: two empty bags of words share no word.
    assert squad_v1({"a": "the"}, {"a": ["a"]}) == {"exact_match": 100, "f1": 0}


def test_the_threshold_of_squad_v2_is_the_best_of_all() -> None:
    gold = {"a": ["cat"], "b": [], "c": ["hat"], "d": [], "e": ["x"]}
    texts = {"a": "cat", "b": "dog", "c": "red hat", "d": "y", "e": "z"}
    nulls = {"a": -2.0, "b": 1.0, "c": -1.0, "d": -1.5, "e": 3.0}

    def at(threshold: float) -> dict[str, float]:
        answers = {name: "" if nulls[name] > threshold else text for name, text in texts.items()}
        return squad_v2(answers, gold)

    scores = squad_v2(texts, gold, nulls)
    for kind in ("f1", "exact"):
        best = max(at(threshold)[kind] for threshold in (-9.0, *nulls.values()))
        assert scores[f"best_{kind}"] == pytest.approx(best)
        assert at(scores[f"best_{kind}_thresh"])[kind] == pytest.approx(best)
    assert scores.items() >= at(scores["best_f1_thresh"]).items()
    assert (scores["HasAns_total"], scores["NoAns_total"], scores["total"]) == (3, 2, 5)
    # Without any right answer nothing beats silence, also where all null scores are negative.
    assert best_threshold(texts, dict.fromkeys(gold, 0.0), nulls, gold) == (40, -3)
    wrong = squad_v2(dict.fromkeys(gold, "no"), gold, dict.fromkeys(gold, -0.5))
    assert wrong["f1"] == wrong["best_f1"] == 40
