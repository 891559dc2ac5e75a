"""Minimal pairs: numbers, words of the text, balance, and a unigram model that learns nothing."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from albert_jax.evaluation.minimal_pairs import accuracies, read


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("minimal_pairs")


@pytest.fixture(scope="module")
def text(program):
    """Each word that the rules know, with a frequency of its own above the least."""
    listed = " ".join(value for value in vars(program).values() if isinstance(value, str))
    other = "is are was were has have been had not this these that those every each one another "
    other += "many several few two three here there the who himself themselves found met heard"
    words = sorted(set(re.findall("[a-z]+", f"{listed} {other}".lower())))
    return " ".join(" ".join([word] * (program.LEAST + i)) for i, word in enumerate(words))


@pytest.fixture(scope="module")
def pairs(program, text):
    return program.make(program.Words(program.count_words(text)), 100, 0)


def words(sentence: str) -> list[str]:
    return re.findall("[a-z]+", sentence.lower())


def test_enough_different_pairs_of_every_rule(program, pairs):
    assert len(pairs) >= 1000
    assert Counter(p.group for p in pairs) == {rule.__name__: 100 for rule in program.RULES}
    assert len({text for p in pairs for text in (p.good, p.bad)}) == 2 * len(pairs)


def test_both_sentences_are_as_long_and_differ_as_their_rule_says(pairs):
    for pair in pairs:
        good, bad = words(pair.good), words(pair.bad)
        assert len(good) == len(bad) and good != bad
        if pair.group.startswith("order"):
            assert sorted(good) == sorted(bad)
        else:
            assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
        if pair.group == "agreement_prepositional":
            assert any(a != b for a, b in zip(good[5:], bad[5:], strict=True))  # over a distance


def test_the_examples_of_the_rules_are_of_their_form(program, pairs):
    example = {rule.__name__: rule.__doc__.split(" / ")[0] for rule in program.RULES}
    for pair in pairs:
        assert abs(len(words(pair.good)) - len(words(example[pair.group]))) <= 1


def test_words_stand_in_the_text_often(program, text):
    rare = re.sub(r"\bhorses\b", "", text)
    found = program.make(program.Words(program.count_words(rare)), 50, 0)
    used = {word for p in found for word in words(p.good + " " + p.bad)}
    assert used <= set(rare.split())
    assert not used & {"horse", "horses"} and "houses" in used
    with pytest.raises(SystemExit, match="give a longer text"):
        program.Words(program.count_words("the man and the men"))


def test_the_seed_decides_and_the_unigram_model_is_at_chance(program, text, pairs):
    known = program.Words(program.count_words(text))
    assert program.make(known, 10, 0) == program.make(known, 10, 0) != program.make(known, 10, 1)
    scores = [
        np.array(program.unigram_scores(known.counts, [getattr(p, side) for p in pairs]))
        for side in ("good", "bad")
    ]
    for name, found in accuracies(pairs, *scores)["sets"].items():
        value = found.accuracy.value
        assert value == 0.5 if name.startswith("order") else 0.35 < value < 0.65, name


def test_the_file_is_what_score_reads(program, pairs, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(program.jsonl(pairs))
    found = read(str(tmp_path / "pairs.jsonl"))
    assert [(p.good, p.bad, p.group) for p in found] == [(p.good, p.bad, p.group) for p in pairs]


def test_pairs_of_true_books(program, shared):
    counts = program.count_words((shared / "data/corpus/books-en.txt").read_text())
    found = program.make(program.Words(counts), 100, 0)
    assert min(counts[word] for p in found for word in words(p.good)) >= program.LEAST
