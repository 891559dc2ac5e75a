"""The page before it is asked anything of a model: names, languages, examples."""

from __future__ import annotations

import dataclasses
import types

import pytest

from albert_jax.serve import forms
from albert_jax.tasks import registry
from tests import tiny_models


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["work/sentiment"], ["sentiment"]),
        (["/data/a/run/", "/data/b/run", "gs://bucket/good"], ["a/run", "b/run", "good"]),
        (["run", "work/run"], ["run", "work/run"]),
        (["."], ["."]),
        (["x/..", "x"], ["x/..", "x"]),
        (["run", "run/"], ["run", "run/"]),
    ],
)
def test_models_have_short_names_that_differ(paths, names):
    assert list(forms.short_names(paths).values()) == names
    assert list(forms.short_names(paths)) == paths


def vocabulary(*tokens: str):
    """As much of a vocabulary as its language needs."""
    return types.SimpleNamespace(size=len(tokens), id_to_token=lambda id: tokens[id])


def test_the_language_is_that_of_most_tokens():
    assert forms.language(tiny_models.vocabulary()) == "en"
    assert forms.language(vocabulary("[CLS]", "▁我们", "的", "北京", "##好", "a", ",", "1")) == "zh"
    assert forms.language(vocabulary("[CLS]", "▁der", "▁die", "的")) == "en"


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("spoken", ["en", "zh"])
def test_every_task_has_examples_that_it_can_read(name, spoken):
    cls = registry.get(name)
    task = cls(cls.config_class())
    assert cls.page.title and cls.page.title != name
    for example in cls.page.examples[spoken]:
        task.parse_line("\t".join("\t".join(example).split("\n")), "the text")
        assert len(example) <= len(cls.page.fields)


@pytest.mark.parametrize(
    ("name", "count", "labels"),
    [
        ("classification", 0, ("text", "second text (optional)")),
        ("classification", 1, ("text",)),
        ("regression", 1, ("text",)),
        ("classification", 2, ("text", "second text")),
    ],
)
def test_a_model_of_pairs_asks_for_both_texts(name, count, labels):
    task = registry.get(name)(types.SimpleNamespace(num_texts=count, name=name))
    assert forms.fields(task) == labels
    shown = forms.describe("x", tiny_models.model(), task)["form"]
    assert shown["fields"] == labels and shown["examples"]
    assert not count or {len(example) for example in shown["examples"]} == {count}


def test_a_chinese_model_is_tried_with_chinese_texts():
    model = tiny_models.classifier()
    task = registry.create(model.run_config.task)
    chinese = dataclasses.replace(model, vocabulary=vocabulary("我", "们", "是"))
    for shown in (forms.describe("x", chinese, task), forms.describe("x", chinese, None)):
        assert "\u4e00" <= shown["look_example"][0][0] <= "\u9fff"
        assert all("\u4e00" <= text[0] <= "\u9fff" for text in shown["mask_examples"])
    assert forms.describe("x", model, task)["look_example"][0].startswith("The food")
