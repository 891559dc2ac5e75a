"""The order of rows: a permutation each epoch, the same for ever."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from albert_jax.data import counter_rng
from albert_jax.data.batches import order
from albert_jax.data.batches.order import RowOrder
from albert_jax.data.batches.row_plan import PlanSettings
from tests.data.made import documents

SETTINGS = PlanSettings(32, 0.1, "sop", False)


@pytest.fixture
def corpus(prepared, small_windows):
    return prepared(documents(400))


def rows_of(row_order, numbers):
    """(first token of A, sizes) of rows, with the text itself, in order of the numbers."""
    found = {}
    for epoch, number, indices, places in row_order.locate(np.asarray(numbers)):
        group = row_order.group(epoch, number)
        for index, row in zip(indices.tolist(), group.order[places].tolist(), strict=True):
            pair = group.plan.first[row]
            start, size = group.plan.a_start[pair], group.plan.a_size[pair]
            found[index] = (epoch, number, group.tokens[start : start + size].tolist())
    return [found[index] for index in range(len(numbers))]


@pytest.mark.parametrize("packing", [False, True])
def test_every_epoch_has_every_row_once(corpus, packing):
    row_order = RowOrder(corpus, SETTINGS._replace(packing=packing), 1)
    first = row_order.epoch_rows(0)
    for epoch, start in ((0, 0), (1, first)):
        count = row_order.epoch_rows(epoch)
        located = row_order.locate(np.arange(start, start + count))
        seen = [(e, g, p) for e, g, _, places in located for p in places.tolist()]
        assert len(seen) == len(set(seen)) == count and {e for e, _, _ in seen} == {epoch}
        groups = {g for _, g, _ in seen}
        assert len(groups) > 3
        for group in groups:
            made = row_order.group(epoch, group)
            assert sorted(made.order.tolist()) == list(range(made.plan.rows))
            assert made.plan.rows == sum(g == group for _, g, _ in seen)
            assert made.plan.rows >= order.GROUP_ROWS
            text = (made.plan.a_start + made.plan.a_size).max()
            assert text <= len(made.tokens)


def test_epochs_and_seeds_differ_and_none_is_another_shifted(corpus):
    # The rule seed + epoch would make epoch 1 of seed 0 the epoch 0 of seed 1.
    zero, one = RowOrder(corpus, SETTINGS, 0), RowOrder(corpus, SETTINGS, 1)
    starts = [
        rows_of(zero, np.arange(20)), rows_of(zero, zero.epoch_rows(0) + np.arange(20)),
        rows_of(one, np.arange(20)),
    ]  # fmt: skip
    texts = [[text for _, _, text in rows] for rows in starts]
    assert texts[0] != texts[1] != texts[2] != texts[0]


def test_neighbours_in_the_corpus_are_far_apart(corpus):
    row_order = RowOrder(corpus, SETTINGS, 1)
    row_order.epoch_rows(0)
    windows = row_order._epochs[0].windows
    assert sorted(windows.tolist()) == list(range(corpus.num_windows))
    assert (np.abs(np.diff(windows)) > 1).mean() > 0.8


def test_rows_do_not_depend_on_how_they_are_asked_for(corpus):
    numbers = np.random.default_rng(0).integers(0, 2000, 60)
    whole = rows_of(RowOrder(corpus, SETTINGS, 3), numbers)
    fresh = pickle.loads(pickle.dumps(RowOrder(corpus, SETTINGS, 3)))
    assert [rows_of(fresh, [number])[0] for number in numbers[::-1]] == whole[::-1]


def test_stored_counts_are_used_and_damaged_ones_are_not(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "counts"
    one = RowOrder(corpus, SETTINGS, 1, str(folder))
    expected = [one.epoch_rows(epoch) for epoch in (0, 1)]
    files = sorted(folder.iterdir())
    assert len(files) == 2
    planned = []
    plan = RowOrder._plan
    monkeypatch.setattr(RowOrder, "_plan", lambda *a: planned.append(a) or plan(*a))
    again = RowOrder(corpus, SETTINGS, 1, str(folder))
    assert [again.epoch_rows(epoch) for epoch in (0, 1)] == expected and not planned
    other = RowOrder(corpus, SETTINGS, 2, str(folder))
    other.epoch_rows(0)
    assert planned and len(list(folder.iterdir())) == 3
    for damage in (b"no array", b""):
        files[0].write_bytes(damage)
        assert RowOrder(corpus, SETTINGS, 1, str(folder)).epoch_rows(0) == expected[0]
    bucket = f"memory://{tmp_path.name}/rows"
    assert RowOrder(corpus, SETTINGS, 1, bucket).epoch_rows(0) == expected[0]
    planned.clear()
    assert RowOrder(corpus, SETTINGS, 1, bucket).epoch_rows(0) == expected[0] and not planned


def test_the_order_stays_what_it_is(corpus):
    """If this fails, runs cannot be resumed with this version: the change must be announced."""

    def digest(seed=1, **changes):
        return RowOrder(corpus, SETTINGS._replace(**changes), counter_rng.key(seed)).digest()[:16]

    assert digest() == "f46157b7e9e59aa5"
    assert digest(packing=True) == "8d27c1ecca23e20b"
    assert digest(seed=2) != digest() != digest(sequence_length=33)
