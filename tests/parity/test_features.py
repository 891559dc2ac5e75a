"""Featurisations equal those of the original, integer by integer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albert_jax.data.vocabularies import vocabulary
from albert_jax.tasks.examples import Sentences
from albert_jax.tasks.formats_qa import read_squad
from albert_jax.tasks.pieces import written_pieces
from albert_jax.tasks.sentence_features import sentence_batch, sentence_features
from albert_jax.tasks.squad_features import span_batch, span_features


@pytest.fixture(scope="module")
def pieces(golden: Path):
    return vocabulary.load(str(golden / "tokenizer" / "spm.model"))


def test_classifier(golden: Path, pieces) -> None:
    cases = json.loads((golden / "heads" / "classifier_features.json").read_text())
    assert cases, "no cases"
    for case in cases:
        texts = tuple(t for t in (case["text_a"], case["text_b"]) if t)
        length = case["max_seq_length"]
        feature = sentence_features(pieces, [Sentences("x:1", texts)], length, None)
        batch = sentence_batch(feature, length, 1)
        assert batch["input_ids"][0].tolist() == case["input_ids"]
        assert batch["token_type_ids"][0].tolist() == case["segment_ids"]
        assert batch["segment_ids"][0].tolist() == case["input_mask"]


@pytest.mark.parametrize("part", ["train", "predict"])
def test_squad(golden: Path, pieces, part: str) -> None:
    stored = json.loads((golden / "heads" / f"squad_features_{part}.json").read_text())
    settings = stored["settings"]
    length = settings["max_seq_length"]
    examples = read_squad(golden / "heads" / "squad_like.json")
    assert len(examples) == stored["examples"]
    ours = span_features(
        pieces,
        examples,
        length,
        stride=settings["doc_stride"],
        query_length=settings["max_query_length"],
    )
    assert {feature.question for feature in ours} == set(range(len(examples)))
    assert len(ours) == len(stored["features"])
    for feature, case in zip(ours, stored["features"], strict=True):
        batch = span_batch([feature], length, 1)
        assert batch["input_ids"][0].tolist() == case["input_ids"]
        assert batch["token_type_ids"][0].tolist() == case["segment_ids"]
        assert batch["segment_ids"][0].tolist() == case["input_mask"]
        assert batch["p_mask"][0].tolist() == case["p_mask"]
        assert list(feature.starts) == case["tok_start_to_orig_index"]
        assert list(feature.ends) == case["tok_end_to_orig_index"]
        best = {str(feature.offset + i): bool(x) for i, x in enumerate(feature.best)}
        assert best == case["token_is_max_context"]
        assert feature.window == case["doc_span_index"]
        assert len(feature.tokens.ids) == case["paragraph_len"]
        if part == "train":
            assert (feature.start, feature.end) == (case["start_position"], case["end_position"])
            assert feature.impossible == case["is_impossible"]
            assert batch["is_impossible"][0] == case["is_impossible"]
        else:
            assert feature.question == case["example_index"]


def test_pieces_read_as_written(golden: Path, pieces) -> None:
    """Unknown pieces too; Hangul apart, which SentencePiece composes again on its own."""
    strings = json.loads((golden / "tokenizer" / "strings.json").read_text())
    cases = strings if isinstance(strings, list) else strings["strings"]
    unknown = 0
    for case in cases:
        text = case["pre_lower"]
        if any("\u1100" <= c <= "\u11ff" for c in text):
            continue
        unknown += pieces.unk_id in case["ids"]
        want = [piece.replace("\u2581", " ") for piece in case["pieces"]]
        assert written_pieces(pieces, case["ids"], text) == want
    assert unknown
