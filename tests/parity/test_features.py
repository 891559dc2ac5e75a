"""Featurisations equal those of the original, integer by integer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from albert_jax.data.vocabularies import vocabulary
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig
from albert_jax.tasks.question_answering import SquadV2Config
from albert_jax.tasks.support.columns import TextExample
from albert_jax.tasks.support.rows import BatchSpec


@pytest.fixture(scope="module")
def tokens(golden: Path):
    return vocabulary.load(str(golden / "tokenizer" / "spm.model"))


def test_classifier(golden: Path, tokens) -> None:
    cases = json.loads((golden / "heads" / "classifier_features.json").read_text())
    assert cases, "no cases"
    task = registry.create(ClassificationConfig())
    for case in cases:
        texts = tuple(t for t in (case["text_a"], case["text_b"]) if t)
        length = case["max_seq_length"]
        features = task.featurize(tokens, [TextExample("x:1", texts)], length)
        batch = task.collate(features, BatchSpec(tokens, length, 1))
        assert batch["input_ids"][0].tolist() == case["input_ids"]
        assert batch["token_type_ids"][0].tolist() == case["segment_ids"]
        assert batch["segment_ids"][0].tolist() == case["input_mask"]


@pytest.mark.parametrize("part", ["train", "predict"])
def test_squad(golden: Path, tokens, part: str) -> None:
    stored = json.loads((golden / "heads" / f"squad_features_{part}.json").read_text())
    settings = stored["settings"]
    length = settings["max_seq_length"]
    config = SquadV2Config(
        doc_stride=settings["doc_stride"], max_query_length=settings["max_query_length"]
    )
    task = registry.create(config)
    path = str(golden / "heads" / "squad_like.json")
    examples = task.read_examples(path, labelled=True)
    assert len(examples) == stored["examples"]
    ours = task.featurize(tokens, examples, length)
    assert {feature.question for feature in ours} == set(range(len(examples)))
    assert len(ours) == len(stored["features"])
    numbers: dict[int, itertools.count] = {}
    for feature, case in zip(ours, stored["features"], strict=True):
        batch = task.collate([feature], BatchSpec(tokens, length, 1))
        assert batch["input_ids"][0].tolist() == case["input_ids"]
        assert batch["token_type_ids"][0].tolist() == case["segment_ids"]
        assert batch["segment_ids"][0].tolist() == case["input_mask"]
        assert batch["p_mask"][0].tolist() == case["p_mask"]
        assert list(feature.starts) == case["tok_start_to_orig_index"]
        assert list(feature.ends) == case["tok_end_to_orig_index"]
        best = {str(feature.offset + i): bool(x) for i, x in enumerate(feature.is_best)}
        assert best == case["token_is_max_context"]
        number = numbers.setdefault(feature.question, itertools.count())
        assert next(number) == case["doc_span_index"]
        assert len(feature.tokens.ids) == case["paragraph_len"]
        if part == "train":
            assert (feature.start, feature.end) == (case["start_position"], case["end_position"])
            assert feature.impossible == case["is_impossible"]
            assert batch["is_impossible"][0] == case["is_impossible"]
        else:
            assert feature.question == case["example_index"]
