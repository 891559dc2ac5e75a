"""Batches as text, and their statistics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.batch import empty_batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.show import show
from albert_jax.data.batches.statistics import draw, measure, table
from albert_jax.errors import StorageError

from made import IdVocabulary  # isort: skip

PHASE = PhaseConfig(sequence_length=48, batch_size=64, packing=True)


@pytest.fixture
def builder(prepared):
    return BatchBuilder([prepared()], IdVocabulary(), PHASE, seed=1, phase_index=0)


def test_show_tells_every_mask_and_pair(builder):
    batch = builder.batch(0, np.arange(4))
    text = show(batch, IdVocabulary(), numbers=np.arange(4))
    assert text.count("\nrow ") == 3 and text.startswith("row 0: ")
    assert text.count("[MASK|") == (batch["input_ids"] == 4).sum()
    assert text.count("  pair ") == batch["segment_ids"].max(1).sum()
    assert "\x1b" not in text and text.count("[CLS]") == text.count("  pair ")
    colored = show(batch, IdVocabulary(), numbers=np.arange(4), color=True)
    assert "\x1b[31;1m[MASK|" in colored
    assert "order swapped" in text or "order original" in text


def test_figures_add_up(builder):
    batches = [builder.batch(step, np.arange(64)) for step in range(3)]
    found = measure(batches, IdVocabulary())
    assert found["row_tokens"].sum() == sum((b["segment_ids"] > 0).sum() for b in batches)
    assert found["sequence_tokens"].sum() == found["row_tokens"].sum()
    assert found["replaced"].sum() == sum(b["mlm_weights"].sum() for b in batches)
    assert found["order"].sum() == len(found["sequence_tokens"])
    assert found["masked_runs"].min() >= 1
    text = table(found)
    assert "rows                  192" in text and "mask rate" in text


def test_known_runs_and_filler_rows():
    shape = dataclasses.replace(PHASE, packing=False, sequence_length=16)
    batch = empty_batch(shape, 2)
    batch["input_ids"][0, :8] = [2, 4, 4, 10, 7, 4, 1, 3]
    batch["segment_ids"][0, :8] = 1
    batch["mlm_positions"] = np.array([[1, 2, 4, 5], [0, 0, 0, 0]])
    batch["mlm_labels"] = np.array([[8, 70, 7, 9], [0, 0, 0, 0]])
    batch["mlm_weights"] = np.array([[1.0, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    found = measure([batch], IdVocabulary())
    assert found["masked_runs"].tolist() == [1, 2]  # a word of two tokens, and two words
    assert found["row_tokens"].tolist() == [8] and found["unknown"].tolist() == [1, 8]
    assert found["replaced"].tolist() == [3, 1, 0] and found["order"].tolist() == [0, 0, 1]


def test_the_picture_is_written_whole_or_not_at_all(builder, tmp_path):
    found = measure([builder.batch(0, np.arange(64))], IdVocabulary())
    draw(found, tmp_path / "data.png")
    assert (tmp_path / "data.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.glob("data*")] == ["data.png"]
    with pytest.raises(StorageError, match="name a writable file"):
        draw(found, tmp_path / "missing" / "data.png")
