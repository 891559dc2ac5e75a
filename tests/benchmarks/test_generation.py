"""The language pair: unseen test sources, its rules, and baselines that stay low."""

from __future__ import annotations

import argparse
import dataclasses
import random

import numpy as np
import pytest

from albert_jax import api
from albert_jax.tasks.support import metrics
from tests import tiny_models


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("generation")


@pytest.fixture(scope="module")
def data(program):
    return program.make(20_000, 0)


def test_enough_pairs_and_test_sources_that_are_unseen(program, data):
    assert len(data["train"]) == 20_000 and len(data["test"]) == program.HELD_OUT
    sources = [source for pairs in data.values() for source, _ in pairs]
    assert len(set(sources)) == len(sources)
    assert program.make(100, 0) == program.make(100, 0) != program.make(100, 1)


def test_every_target_fits(program, data):
    for pairs in data.values():
        assert max(len(target.split()) for _, target in pairs) < program.TARGET_LENGTH


def test_the_rules_of_the_second_language(program):
    language, generator = program.Language(0), random.Random(0)
    lengths = set()
    for _ in range(500):
        said = language.draw(generator)
        source, target = language.source(said).split(), language.target(said).split()
        lengths.add(len(source) - len(target))
        verb = language.verbs[said.verb][1][said.subject.number]
        assert target[-2 if said.negated else -1] == verb
        assert ("ne" in target) == ("pa" in target) == said.negated == ("not" in source)
        if said.adverb is not None:
            assert " ".join(target).startswith(language.adverbs[said.adverb][1])
        if said.beside is not None:
            assert said.beside.number != said.subject.number
        one = said._replace(subject=said.subject._replace(number=1 - said.subject.number))
        assert language.target(one).split()[-2 if said.negated else -1] != verb
    assert len(lengths) > 3


def test_adjectives_agree_with_a_gender_that_the_source_hides(program):
    language = program.Language(0)
    assert {noun.gender for noun in language.nouns} == {0, 1}
    forms = language.adjectives[3][1]
    for number, noun in enumerate(language.nouns):
        for many in (0, 1):
            phrase = program.Phrase(number, many, (3,))
            assert language._target_phrase(phrase).endswith(f" {forms[noun.gender + 2 * many]}")
    assert len(set(forms)) == 4


def test_copying_and_a_dictionary_score_low(program, data):
    sources, targets = zip(*data["test"], strict=True)
    assert metrics.bleu_chrf(sources, targets)["bleu"] < 20
    worded = program.word_for_word(program.Language(0), sources)
    assert metrics.bleu_chrf(worded, targets)["bleu"] < 50
    assert metrics.bleu_chrf(targets, targets)["bleu"] > 99.9
    # A word apart from order and agreement is right: the dictionary knows the words.
    known = {word for target in targets for word in target.split()}
    share = [word in known for text in worded for word in text.split()]
    assert sum(share) / len(share) > 0.95


def test_each_word_is_a_token_of_the_start(program, data, tmp_path):
    texts = [text for pair in data["train"] for text in pair]
    small = dataclasses.replace(
        tiny_models.MODEL, max_position_embeddings=2 * program.TARGET_LENGTH
    )
    options = argparse.Namespace(out=str(tmp_path), seed=0)
    model = api.load(program.start(options, small, texts))
    assert model.vocabulary.unk_id not in np.concatenate(model.vocabulary.encode(texts[:1000]))
    for text, ids in zip(texts[:1000], model.vocabulary.encode(texts[:1000]), strict=True):
        assert len(ids) == len(text.split()) <= program.TARGET_LENGTH - 2
        assert model.vocabulary.decode(ids) == text
