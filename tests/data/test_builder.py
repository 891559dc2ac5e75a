"""Rows of a batch: their layout, and that they are a function of seed, step and row."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.batch import batch_shapes
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.errors import DataError
from tests.data.made import IdVocabulary, documents

PHASE = PhaseConfig(sequence_length=48, batch_size=64)


def builder_of(corpora, phase=PHASE, seed=1, **options):
    return BatchBuilder(corpora, IdVocabulary(), phase, seed=seed, **({"phase_index": 0} | options))


def original_text(batch):
    """input_ids with the masked tokens put back."""
    text = batch["input_ids"].copy()
    row, _ = np.nonzero(batch["mlm_weights"])
    used = batch["mlm_weights"] > 0
    text[row, batch["mlm_positions"][used]] = batch["mlm_labels"][used]
    return text


def equal(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("order", ["sop", "nsp", "none"])
def test_layout(prepared, small_windows, packing, order):
    phase = dataclasses.replace(
        PHASE, packing=packing, objective=ObjectiveConfig(sentence_order=order)
    )
    builder = builder_of([prepared()], phase)
    batch = builder.batch(3, np.arange(64))
    shapes = batch_shapes(phase, 64)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == shapes
    assert batch["mlm_positions"].shape[1] == 7
    assert batch["cls_positions"].shape[1] == (6 if packing else 1)
    text, segments, positions = original_text(batch), batch["segment_ids"], batch["positions"]
    for row in range(64):
        pairs = segments[row].max()
        length = (segments[row] > 0).sum()
        assert (segments[row, length:] == 0).all() and (np.diff(segments[row, :length]) >= 0).all()
        for pair in range(1, pairs + 1):
            places = np.flatnonzero(segments[row] == pair)
            assert (positions[row, places] == np.arange(len(places))).all()
            assert batch["cls_positions"][row, pair - 1] == places[0]
            ids, kinds = text[row, places], batch["token_type_ids"][row, places]
            assert ids[0] == 2 and ids[-1] == 3
            separators = np.flatnonzero(ids == 3)
            assert (ids == 2).sum() == 1 and len(separators) == 1 + kinds.any()
            if kinds.any():
                assert (kinds == (np.arange(len(ids)) > separators[0])).all()
                assert batch["sop_weights"][row, pair - 1] == (order != "none")
            elif order == "sop":
                assert batch["sop_weights"][row, pair - 1] == 0
        for name in ("input_ids", "token_type_ids", "positions"):
            assert not batch[name][row, length:].any()
        for name in ("cls_positions", "sop_labels", "sop_weights"):
            assert not batch[name][row, pairs:].any()
    used = batch["mlm_weights"] > 0
    assert (np.diff(used.astype(int), axis=1) <= 0).all()
    assert not batch["mlm_positions"][~used].any() and not batch["mlm_labels"][~used].any()
    steps = np.diff(batch["mlm_positions"], axis=1)
    assert (steps[used[:, 1:]] > 0).all()
    row, _ = np.nonzero(used)
    assert (segments[row, batch["mlm_positions"][used]] > 0).all()
    assert (batch["mlm_labels"][used] >= 5).all()  # special tokens are never masked
    sizes = (segments > 0).sum(1)
    if not packing:
        wanted = np.minimum(np.maximum(np.rint(sizes * 0.15), 1), 7)
        assert (used.sum(1) == wanted).mean() > 0.95


def test_pairs_are_text_of_one_document_swapped_half_of_the_time(prepared):
    docs = documents(300)
    text = [ids.tolist() for ids, _ in docs]
    builder = builder_of([prepared(docs)])
    labels = []
    for step in range(4):
        batch = builder.batch(step, np.arange(64))
        ids = original_text(batch)
        for row in range(64):
            real = ids[row, batch["segment_ids"][row] > 0].tolist()
            middle = real.index(3)
            a, b = real[1:middle], real[middle + 1 : -1]
            label = int(batch["sop_labels"][row, 0])
            if not b:
                assert label == 0
                continue
            labels.append(label)
            first, second = (b, a) if label else (a, b)
            found = [d for d in text if _where(d, first) >= 0 and _where(d, second) >= 0]
            assert any(_where(d, first) + len(first) <= _where(d, second) for d in found)
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / np.sqrt(len(labels))


def _where(document, part):
    for start in range(len(document) - len(part) + 1):
        if document[start : start + len(part)] == part:
            return start
    return -1


@pytest.mark.parametrize("packing", [False, True])
def test_any_rows_of_any_host_are_those_of_the_whole_batch(prepared, small_windows, packing):
    phase = dataclasses.replace(PHASE, packing=packing)
    corpus = prepared()
    builder = builder_of([corpus], phase)
    for step in (0, 7, 30):  # 30 lies in a later epoch
        whole = builder.batch(step, np.arange(64))
        for rows in (np.arange(32, 64), np.arange(0, 64, 4), np.array([63, 2, 17])):
            fresh = pickle.loads(pickle.dumps(builder_of([corpus], phase)))
            part = fresh.batch(step, rows)
            assert equal(part, {name: array[rows] for name, array in whole.items()})
    assert builder.rows_per_epoch() < 31 * 64


def test_seed_phase_and_step_change_rows_and_masks(prepared):
    corpus = prepared()
    rows = np.arange(64)
    batches = [
        builder_of([corpus]).batch(0, rows), builder_of([corpus]).batch(1, rows),
        builder_of([corpus], seed=2).batch(0, rows), builder_of([corpus], phase_index=1).batch(0, rows),
    ]  # fmt: skip
    for k, one in enumerate(batches):
        for other in batches[:k]:
            assert (one["input_ids"] != other["input_ids"]).any(axis=1).mean() > 0.9
    assert equal(builder_of([corpus]).batch(0, rows), batches[0])


def test_masks_are_fresh_when_a_row_comes_again(prepared):
    corpus = prepared(documents(3))
    builder = builder_of([corpus], dataclasses.replace(PHASE, batch_size=400))
    batch = builder.batch(0, np.arange(400))
    masks = {}
    for row, text in enumerate(original_text(batch)):
        if (text > 0).sum() > 30:
            masks.setdefault(text.tobytes(), []).append(batch["mlm_positions"][row].tobytes())
    often = [found for found in masks.values() if len(found) > 5]
    assert often and all(len(set(found)) > len(found) / 2 for found in often)


@pytest.mark.parametrize("mask", ["ngram", "word", "token", "span"])
def test_units(prepared, mask):
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(mask_unit=mask, mask_rate=0.3))
    batch = builder_of([prepared()], phase).batch(0, np.arange(64))
    text = original_text(batch)
    broken = 0
    for row in range(64):
        used = batch["mlm_positions"][row][batch["mlm_weights"][row] > 0]
        masked = np.isin(np.arange(48), used)
        begins = IdVocabulary.starts_word[text[row]] | np.isin(np.r_[0, text[row][:-1]], (2, 3))
        word = np.cumsum(begins)
        broken += sum(len(set(masked[word == k])) > 1 for k in np.unique(word[masked]))
    assert (broken > 0) == (mask in ("token", "span"))


def test_rates(prepared):
    corpus = prepared()

    def shares(**changes):
        objective = ObjectiveConfig(**changes)
        batch = builder_of([corpus], dataclasses.replace(PHASE, objective=objective)).batch(
            0, np.arange(64)
        )
        text = (batch["segment_ids"] > 0).sum(1) - 2 - (batch["token_type_ids"] > 0).any(1)
        return batch["mlm_weights"].sum(1) / text, batch

    drawn, batch = shares(mask_rate=1.0, uniform_mask_rate=True)
    assert batch["mlm_weights"].shape == (64, 48)
    assert 0.35 < drawn.mean() < 0.65 and drawn.std() > 0.2
    every, _ = shares(mask_rate=1.0)
    assert (every == 1).all()
    none, batch = shares(mask_rate=0.0)
    assert batch["mlm_positions"].shape == (64, 0) and not none.any()


def test_mixture_follows_the_weights_and_each_corpus_its_own_order(prepared):
    one, two = prepared(documents(200, 1), "one"), prepared(documents(200, 2), "two")
    phase = dataclasses.replace(PHASE, mixture=(3.0, 1.0), batch_size=4096)
    builder = builder_of([one, two], phase)
    assert abs((builder.mixture.pattern == 0).mean() - 0.75) < 1e-3
    part = builder.batch(5, np.arange(1000, 1100))
    again = builder.batch(5, np.arange(1099, 999, -1))
    assert equal(part, {name: array[::-1] for name, array in again.items()})
    share = (builder.mixture.pattern[np.arange(256)] == 0).mean()
    assert 0.6 < share < 0.9
    by_size = builder_of([one, two], dataclasses.replace(phase, mixture=()))
    expected = one.num_tokens / (one.num_tokens + two.num_tokens)
    assert abs((by_size.mixture.pattern == 0).mean() - expected) < 1e-3
    assert builder.order_hash() != by_size.order_hash()


def test_another_vocabulary_is_refused(prepared):
    corpus = prepared()
    with pytest.raises(DataError, match="prepare it again with this vocabulary"):
        BatchBuilder([corpus], IdVocabulary("b" * 64), PHASE, seed=0, phase_index=0)


def test_a_damaged_record_is_named(prepared):
    corpus = prepared()
    path = corpus.directory / "train-1.array_record"
    content = bytearray(path.read_bytes())
    start = content.find(corpus.shards[1].ids(0).tobytes()[:40])
    content[start + 11] ^= 1
    path.write_bytes(content)
    fresh = type(corpus).open(corpus.directory)
    with pytest.raises(DataError, match="row 0 of batch 7 of phase 2: shard .*train-1 is damaged"):
        builder_of([fresh], phase_index=2).batch(7, np.arange(64))


def two_halves():
    """Documents of 300, the second half of which has ids from 60 on."""
    docs = documents(300)
    return [(ids % 55 + (60 if n >= 150 else 5), lengths) for n, (ids, lengths) in enumerate(docs)]


def with_damage(corpus):
    """The same corpus after a bit of its second shard has flipped."""
    path = corpus.directory / "train-1.array_record"
    content = bytearray(path.read_bytes())
    content[content.find(corpus.shards[1].ids(0).tobytes()[:40]) + 11] ^= 1
    path.write_bytes(content)
    return type(corpus).open(corpus.directory)


def test_the_rows_of_a_damaged_record_are_named(prepared):
    one, two = prepared(documents(100), "one"), prepared(two_halves(), "two")
    phase = dataclasses.replace(PHASE, steps=9, batch_size=16, mixture=(0.3, 0.7))
    builder = builder_of([one, two], phase, first_step=20)
    holds = [
        [row for row, text in enumerate(original_text(builder.batch(step, np.arange(16))))
         if (builder.mixture.pattern[step * 16 + row] == 1 and (text >= 60).any())]
        for step in range(9)
    ]  # fmt: skip
    with pytest.raises(DataError) as found:
        builder_of([one, with_damage(two)], phase, first_step=20).batch(2, np.arange(16))
    shown = ", ".join(map(str, holds[2][:8])) + (", ..." if len(holds[2]) > 8 else "")
    count = sum(map(len, holds[2:]))
    assert f"; step 23 reads its text in row {shown} (rows in all: {count}); " in str(found.value)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("order", ["sop", "nsp", "none"])
def test_a_damaged_record_is_left_out_and_all_else_stays(prepared, packing, order, caplog):
    objective = ObjectiveConfig(sentence_order=order)
    phase = dataclasses.replace(PHASE, packing=packing, objective=objective)
    corpus = prepared(two_halves())
    whole = builder_of([corpus], phase).batch(3, np.arange(64))
    damaged = with_damage(corpus)
    damaged.leave_out_damage()
    assert damaged.left_out == {1} and damaged.documents_in(damaged.left_out) == 150
    assert "train-1 is damaged" in caplog.text and "left out: 150 documents" in caplog.text
    builder = pickle.loads(pickle.dumps(builder_of([damaged], phase)))
    batch = builder.batch(3, np.arange(64))
    assert builder.order_hash() == builder_of([corpus], phase).order_hash()
    text, segments = original_text(whole), whole["segment_ids"]
    lost = np.zeros(segments.shape, bool)
    for row, pair in zip(*np.unique(np.argwhere(text >= 60), axis=0).T, strict=True):
        lost[row] |= segments[row] == segments[row, pair]
    assert 0.2 < lost.sum() / (segments > 0).sum() < 0.8
    for name in ("input_ids", "token_type_ids", "segment_ids", "positions"):
        assert (batch[name] == np.where(lost, 0, whole[name])).all(), name
    rows = np.arange(64)[:, None]
    masked = np.where(lost[rows, whole["mlm_positions"]], 0, whole["mlm_weights"])
    assert (batch["mlm_weights"] == masked).all()
    if order != "none":  # The other half of the text has hardly a token that can be masked.
        assert 0 < masked.sum() < whole["mlm_weights"].sum()
    for name in ("mlm_positions", "mlm_labels"):
        assert (batch[name] == np.where(masked > 0, whole[name], 0)).all()
    kept = ~lost[rows, whole["cls_positions"]]
    for name in ("cls_positions", "sop_labels", "sop_weights"):
        assert (batch[name][kept] == whole[name][kept]).all()
    assert not batch["sop_weights"][~kept].any()
    part = builder.batch(3, np.array([40, 7]))
    assert equal(part, {name: array[[40, 7]] for name, array in batch.items()})
