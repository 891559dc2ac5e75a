"""Segment pairs: each rule of the original by itself. (Distributions: tests/parity.)"""

from __future__ import annotations

import numpy as np
import pytest

from albert_jax.data.batches import row_plan
from albert_jax.data.batches.row_plan import PlanSettings, pack, plan_rows, sequences_per_row


def lengths(documents=200, longest=12, seed=0, most=40):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, longest, documents)
    return counts, rng.integers(1, most, counts.sum())


def settings(length=64, short=0.1, order="sop", packing=False):
    return PlanSettings(length, short, order, packing)


@pytest.mark.parametrize("order", ["sop", "nsp", "none"])
@pytest.mark.parametrize("packing", [False, True])
def test_rows_fit_and_pairs_stay_in_their_documents(order, packing):
    counts, sentences = lengths()
    plan = plan_rows(counts, sentences, settings(order=order, packing=packing), 3)
    row = np.repeat(np.arange(plan.rows), np.diff(plan.first))
    assert np.bincount(row, plan.tokens).max() <= 64
    assert np.bincount(row).min() >= 1
    assert np.bincount(row).max() <= (sequences_per_row(64) if packing else 1)
    assert plan.a_size.min() >= 1
    ends = np.cumsum(np.add.reduceat(sentences, np.cumsum(counts) - counts))
    document = [
        np.searchsorted(ends, start, side="right") for start in (plan.a_start, plan.b_start)
    ]
    for side, (start, size) in enumerate(
        ((plan.a_start, plan.a_size), (plan.b_start, plan.b_size))
    ):
        some = size > 0
        last = np.searchsorted(ends, start[some] + size[some] - 1, side="right")
        assert (last == document[side][some]).all()
    other = document[0] != document[1]
    assert (other[plan.b_size > 0] == (plan.label[plan.b_size > 0] == 1)).all()
    if order == "none":  # A row is one text, and two special tokens leave more of it for that.
        assert not plan.b_size.any() and plan.tokens.max() == 64
    if order == "nsp":
        assert 0.4 < plan.label.mean() < 0.9 and (plan.b_size > 0).all()
    else:
        assert not plan.label.any()
        assert (plan.weight == ((plan.b_size > 0) & (order == "sop"))).all()


def test_no_text_is_lost_or_repeated_when_nothing_is_too_long():
    counts, sentences = lengths(most=8)
    plan = plan_rows(counts, sentences, settings(64, 0.0), 0)
    pair_text = np.concatenate(
        [np.r_[a : a + n, b : b + m] for a, n, b, m in zip(*plan[1:5], strict=True)]
    )
    assert len(pair_text) == len(np.unique(pair_text))
    # What is missing was cut from chunks that ran over, at most one sentence each.
    assert len(pair_text) >= sentences.sum() - 8 * plan.rows


def test_chunks_reach_the_target_and_no_further():
    sentences = np.array([10, 10, 10, 10, 10, 10, 10, 5])
    plan = plan_rows(np.array([8]), sentences, settings(33, 0.0), 1)
    assert plan.a_start.tolist() == [0, 30, 60]
    assert (plan.a_size + plan.b_size).tolist() == [30, 30, 15]
    assert (plan.a_start + plan.a_size == plan.b_start).all()
    assert set(plan.a_size[:2].tolist()) <= {10, 20}


def test_split_is_uniform_over_the_borders():
    plan = plan_rows(np.full(6000, 4), np.full(24000, 5), settings(64, 0.0), 1)
    shares = np.bincount(plan.a_size // 5, minlength=4)[1:] / plan.rows
    assert plan.rows == 6000 and np.abs(shares - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 6000)


def test_a_lone_sentence_has_no_order():
    plan = plan_rows(np.array([1, 1, 2]), np.array([5, 6, 7, 8]), settings(), 0)
    assert plan.b_size.tolist()[:2] == [0, 0] and plan.weight.tolist() == [0, 0, 1]
    assert plan.tokens.tolist() == [7, 8, 18]
    alone = plan_rows(np.array([3]), np.array([5, 6, 7]), settings(order="nsp"), 0)
    assert not alone.label.any()  # One document: there is no other to draw from.


def test_long_sentences_are_cut_and_kept_whole_together():
    units, documents = row_plan._cut_long(np.array([2, 1]), np.array([100, 7, 50]), 20, 5)
    assert sorted(units)[-2:] == [5, 7] and units.sum() == 157 and documents.tolist() == [21, 10]
    plan = plan_rows(np.array([1]), np.array([1000]), settings(64, 0.0), 0)
    assert plan.weight.mean() > 0.9
    assert (plan.a_size + plan.b_size).sum() > 0.95 * 1000


def sequential_truncation(a, b, limit, rng):
    """The original's rule, token by token; returns tokens cut from (front, back) of each."""
    cut = [[0, 0], [0, 0]]
    sizes = [a, b]
    while sum(sizes) > limit:
        side = 0 if sizes[0] > sizes[1] else 1
        sizes[side] -= 1
        cut[side][int(rng.random() < 0.5)] += 1
    return sizes, cut


def test_truncation_is_the_sequential_rule():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 90, 3000), rng.integers(1, 90, 3000)
    a_start, a_size, b_start, b_size = row_plan._truncate(
        np.zeros(3000, int), a, np.zeros(3000, int), b, 61, rng.integers(0, 2**63, 3000, np.uint64)
    )
    fronts = []
    for k in range(3000):
        sizes, cut = sequential_truncation(int(a[k]), int(b[k]), 61, rng)
        assert [a_size[k], b_size[k]] == sizes
        fronts.append([cut[0][0], cut[1][0]])
    ours = np.stack([a_start, b_start], 1)
    assert (ours <= np.stack([a - a_size, b - b_size], 1)).all() and (ours >= 0).all()
    dropped = np.stack([a - a_size, b - b_size], 1).sum()
    spread = 5 * np.sqrt(dropped / 4 * 2)
    assert abs(ours.sum() - np.sum(fronts)) < spread
    assert abs((ours**2).sum() / (np.array(fronts) ** 2).sum() - 1) < 0.1


def test_coin_flips_of_many_tosses():
    heads = row_plan._coin_flips(
        np.full(4000, 150), np.arange(4000, dtype=np.uint64) * np.uint64(977), 0
    )
    assert abs(heads.mean() - 75) < 5 * np.sqrt(37.5 / 4000)
    assert abs(heads.var() - 37.5) < 5 * 37.5 * np.sqrt(2 / 4000)


def test_short_targets_are_per_document_or_when_packed_per_pair():
    counts, sentences = np.full(2000, 60), np.full(120_000, 3)
    plan = plan_rows(counts, sentences, settings(64, 0.25), 0)
    document = plan.a_start // 180
    mean = np.bincount(document, plan.tokens) / np.bincount(document)
    assert abs((mean < 55).mean() - 0.25 * 50 / 60) < 0.05
    packed = plan_rows(counts, sentences, settings(64, 0.25, packing=True), 0)
    ends = packed.a_start % 180 + packed.tokens < 170  # not the rest of a document
    assert abs((packed.tokens[ends] < 55).mean() - 0.25 * 50 / 60) < 0.05


def test_a_plan_is_a_function_of_its_key():
    counts, sentences = lengths()
    one, same, other = (plan_rows(counts, sentences, settings(), key) for key in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert one.rows != other.rows or (one.a_size != other.a_size).any()


@pytest.mark.parametrize("most", [1, 3, 32])
def test_packing_places_every_item_once(most):
    rng = np.random.default_rng(0)
    for sizes in (rng.integers(1, 65, 500), np.full(7, 64), rng.integers(1, 4, 300), [5]):
        sizes = np.asarray(sizes)
        row = pack(sizes, 64, most, 1)
        assert np.bincount(row, sizes).max() <= 64 and np.bincount(row).max() <= most
        assert set(row.tolist()) == set(range(row.max() + 1))
    assert len(pack(np.zeros(0, int), 64, most, 1)) == 0


@pytest.mark.parametrize("most", [1, 3, 32])
def test_packing_is_first_fit_of_the_longest_item(most):
    rng = np.random.default_rng(1)
    for sizes in (rng.integers(1, 65, 500), rng.integers(1, 9, 300), np.full(7, 9)):
        expected, left = [], sorted(sizes.tolist(), reverse=True)
        while left:
            fitting: list[int] = []
            for size in left:
                if len(fitting) < most and sum(fitting) + size <= 64:
                    fitting.append(size)
            for size in fitting:
                left.remove(size)
            expected.append(fitting)
        row = pack(sizes, 64, most, 1)
        assert expected == [
            sorted(sizes[row == number].tolist(), reverse=True) for number in range(row.max() + 1)
        ]


def test_next_sentence_prediction_of_one_document_reads_it_once():
    counts, sentences = np.array([200]), lengths()[1][:200]
    plan = plan_rows(counts, sentences, settings(order="nsp", short=0.0), 3)
    assert not plan.label.any()
    assert plan.a_size.sum() + plan.b_size.sum() <= sentences.sum()


def test_packing_fills_rows():
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.gamma(2, 25, 20_000), 5, 512).astype(int)  # paragraphs
    rows = pack(sizes, 512, sequences_per_row(512), 1).max() + 1
    assert sizes.sum() / rows / 512 > 0.99
