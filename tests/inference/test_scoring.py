"""Pseudo-log-likelihood: which tokens are masked, and the sums of sentences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from albert_jax import api
from albert_jax.errors import DataError
from albert_jax.inference import scoring
from tests import tiny_models


class Letters:
    """Letters are tokens; upper-case ones begin words."""

    pad_id, cls_id, sep_id, mask_id = 0, 2, 3, 4
    starts_word = np.array([True] * 31 + [False] * 29)

    def encode(self, texts):
        return [
            np.array([5 + ord(c) - 65 if c.isupper() else 31 + ord(c) - 97 for c in t], np.int32)
            for t in texts
        ]


def test_the_rest_of_a_word_is_masked_too() -> None:
    ids = np.stack(Letters().encode(["AbcD", "EFgh"]))
    rows = scoring.mask_each_token(Letters(), ids, [7, 2])
    assert rows.ids.tolist() == [
        [2, 4, 4, 4, 8, 3],
        [2, 5, 4, 4, 8, 3],
        [2, 5, 31 + 1, 4, 8, 3],
        [2, 5, 31 + 1, 31 + 2, 4, 3],
        [2, 4, 10, 31 + 6, 31 + 7, 3],
        [2, 9, 4, 4, 4, 3],
        [2, 9, 10, 4, 4, 3],
        [2, 9, 10, 31 + 6, 4, 3],
    ]
    assert rows.positions.tolist() == [1, 2, 3, 4] * 2
    assert rows.labels.ravel().tolist() == [*ids[0], *ids[1]]
    assert rows.sentences.ravel().tolist() == [7] * 4 + [2] * 4


def likelihoods(texts: list[str], monkeypatch, **settings: int):
    """Scores by a function that gives each label's negative id, and the batches it was asked."""
    for name, value in settings.items():
        monkeypatch.setattr(scoring, name, value)
    batches = []

    def label_log_probs(batch):
        batches.append(batch)
        masked = np.take_along_axis(batch["input_ids"], batch["mlm_positions"], 1)
        assert set(masked.ravel()) <= {4, 0}
        return -batch["mlm_labels"].astype(np.float32)

    sentences = scoring.encode_sentences(Letters(), texts, texts, 128)
    return scoring.log_likelihoods(sentences, Letters(), label_log_probs, 128, shards=3), batches


def test_log_probabilities_add_up_per_sentence_over_batches_of_several_lengths(monkeypatch) -> None:
    texts = ["".join("ABCD"[(i * i + n) % 4] for i in range(n)) for n in (40, 2, 30, 100, 41)]
    texts[1] = "Ab"
    found, batches = likelihoods(texts, monkeypatch, BATCH_TOKENS=600, CHUNK_TOKENS=4000)
    ids = scoring.encode_sentences(Letters(), texts, texts, 128)
    assert found.tolist() == [-sentence.sum() for sentence in ids]
    shapes = [batch["input_ids"].shape for batch in batches]
    # Short rows wait for longer ones; all but the last batch are full.
    assert shapes == [(18, 32), *[(15, 44)] * 6, *[(6, 104)] * 17, (6, 128)]
    for batch in batches:
        assert (batch["segment_ids"] == (batch["input_ids"] > 0)).all()
        assert (batch["positions"].max(1) + 1 == np.maximum(1, batch["segment_ids"].sum(1))).all()


def test_equal_rows_are_computed_once(monkeypatch) -> None:
    texts = ["ABC", "ADC", "AEC", "ABC", "AB"]
    found, batches = likelihoods(texts, monkeypatch, BATCH_TOKENS=60)
    assert found.tolist() == [-5 - 6 - 7, -5 - 8 - 7, -5 - 9 - 7, -5 - 6 - 7, -5 - 6]
    rows = [tuple(row) for batch in batches for row in batch["input_ids"] if row.any()]
    # The row that masks the middle has four labels; a row has two.
    assert len(rows) == 10 and len(set(rows)) == 9


def naive(model, text: str) -> float:
    """The sum over tokens of log-probabilities, one masked copy at a time, padded to nothing."""
    (ids,), total = model.vocabulary.encode([text]), 0.0
    starts = model.vocabulary.starts_word[ids]
    for i in range(len(ids)):
        end = next((j for j in range(i + 1, len(ids)) if starts[j]), len(ids))
        copy = [2, *ids[:i], *[model.vocabulary.mask_id] * (end - i), *ids[end:], 3]
        row = np.array([copy], np.int32)
        batch = {
            "input_ids": row, "token_type_ids": np.zeros_like(row),
            "segment_ids": np.ones_like(row), "positions": np.arange(row.shape[1])[None],
        }  # fmt: skip
        hidden = api.encode(model.params, model.config, batch)
        logits = api.mlm_logits(model.params, model.config, hidden, np.array([[i + 1]]))
        found = np.asarray(logits, np.float64)[0, 0]
        total += found[ids[i]] - np.log(np.exp(found).sum())
    return total


@pytest.mark.parametrize("unroll", [False, True])
def test_scores_are_those_of_each_position_alone(unroll: bool, monkeypatch) -> None:
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 48)
    model = tiny_models.model()
    compute = dataclasses.replace(api.FLOAT32, unroll=unroll)
    monkeypatch.setattr(scoring.unroll, "inference_compute", lambda *_: compute)
    scoring._program.cache_clear()
    texts = ["the file is found", "the name", "the name is found", "the file is found"]
    scores, counts = scoring.score_sentences(model, texts, texts)
    scoring._program.cache_clear()
    assert counts.tolist() == [len(ids) for ids in model.vocabulary.encode(texts)]
    assert scores == pytest.approx([naive(model, text) for text in texts], abs=1e-4)


@pytest.mark.parametrize(("text", "count"), [("Abcdefg", 7), ("", 0)])
def test_sentences_that_cannot_be_scored(text: str, count: int) -> None:
    with pytest.raises(DataError, match=f"f:2: the sentence has {count} tokens, .* 1 to 6"):
        scoring.encode_sentences(Letters(), ["A", text], ["f:1", "f:2"], 8)
