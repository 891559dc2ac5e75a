"""Batches through Grain: one sequence, whatever the hosts, workers and interruptions."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import pytest

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.pipeline import batches, held_out
from albert_jax.errors import DataError
from tests.data.made import IdVocabulary, documents

ROWS = 16


def digest(found) -> str:
    total = hashlib.sha256()
    for batch in found:
        for name in sorted(batch):
            total.update(np.ascontiguousarray(batch[name]).tobytes())
    return total.hexdigest()


def sequence(corpus, count, hosts=1, workers=0, cuts=()):
    """Batches of all hosts put together, each host stopped and started again at the cuts."""
    parts = []
    for host in range(hosts):
        rows = np.arange(host * ROWS // hosts, (host + 1) * ROWS // hosts)
        found = []
        for start, stop in zip((0, *cuts), (*cuts, count), strict=True):
            phase = PhaseConfig(sequence_length=32, batch_size=ROWS)
            builder = BatchBuilder([corpus], IdVocabulary(), phase, seed=1, phase_index=0)
            found += list(batches(builder, start, stop, rows, workers))
        parts.append(found)
    return [
        {name: np.concatenate([part[name] for part in row]) for name in row[0]}
        for row in zip(*parts, strict=True)
    ]


def test_one_hash_for_hosts_and_interruptions(prepared, small_windows):
    corpus = prepared(documents(60))
    whole = digest(sequence(corpus, 60))
    assert digest(sequence(corpus, 60, hosts=2)) == whole
    assert digest(sequence(corpus, 60, hosts=4)) == whole
    cuts = sorted(np.random.default_rng(0).choice(np.arange(1, 60), 20, replace=False).tolist())
    assert digest(sequence(corpus, 60, cuts=cuts)) == whole
    assert digest(sequence(corpus, 61)) != whole


def test_one_hash_for_workers(prepared):
    corpus = prepared(documents(60))
    whole = digest(sequence(corpus, 12))
    assert digest(sequence(corpus, 12, workers=1)) == whole
    assert digest(sequence(corpus, 12, workers=2, cuts=(5,))) == whole


@pytest.mark.slow
def test_one_hash_for_a_thousand_batches(prepared):
    corpus = prepared(documents(400))
    whole = digest(sequence(corpus, 1000))
    rng = np.random.default_rng(0)
    cuts = sorted(rng.choice(np.arange(1, 1000), 20, replace=False).tolist())
    for hosts in (1, 2, 4):
        for workers in (0, 1, 2):
            assert digest(sequence(corpus, 1000, hosts, workers)) == whole
    assert digest(sequence(corpus, 1000, cuts=cuts)) == whole


def test_the_batches_stay_what_they_are(prepared):
    """If this fails, runs cannot be resumed with this version: the change must be announced."""
    assert digest(sequence(prepared(documents(60)), 5))[:16] == "dafd4f918d4db896"


def test_4096_rows_are_built_ahead():
    """They hide the second in which a group of rows is planned from the training step."""
    built = []

    class Recorder:
        def batch(self, step, rows):
            built.append(step)
            return {"rows": rows}

    stream = batches(Recorder(), 0, 100, np.arange(256))  # type: ignore[arg-type]
    next(stream)
    deadline = time.monotonic() + 20
    while len(built) < 17 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert built == list(range(17))
    stream.close()


def test_an_early_stop_leaves_no_thread(prepared):
    def reading():
        return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]

    phase = PhaseConfig(sequence_length=32, batch_size=ROWS)
    builder = BatchBuilder([prepared()], IdVocabulary(), phase, seed=1, phase_index=0)
    stream = batches(builder, 0, 10_000, np.arange(ROWS))
    next(stream)
    assert reading()
    stream.close()
    deadline = time.monotonic() + 20
    while reading() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not reading()


def test_a_damaged_record_reaches_the_caller(prepared):
    corpus = prepared()
    path = corpus.directory / "train-0.array_record"
    content = path.read_bytes().replace(corpus.shards[0].ids(0).tobytes()[:64], b"\1" * 64)
    path.write_bytes(content)
    builder = BatchBuilder([corpus], IdVocabulary(), PhaseConfig(sequence_length=32, batch_size=4), seed=0,
                     phase_index=0)  # fmt: skip
    with pytest.raises(
        DataError, match=r"row \d of batch \d of phase 0: shard .*train-0 is damaged: record 0"
    ):
        list(batches(builder, 0, 3, np.arange(4)))


@pytest.mark.parametrize("packing", [False, True])
def test_held_out_rows_are_fixed_and_filled_up(prepared, packing):
    corpus = prepared(documents(80))
    phase = PhaseConfig(sequence_length=32, batch_size=ROWS, packing=packing, mixture=(1.0,))
    options = {"max_rows": 50, "seed": 3}
    small = held_out(corpus, phase, IdVocabulary(), batch_size=16, **options)
    large = held_out(corpus, phase, IdVocabulary(), batch_size=50, **options)
    assert len(small) == 4 and len(large) == 1
    for name, array in large[0].items():
        joined = np.concatenate([batch[name] for batch in small])
        assert (joined[:50] == array).all() and not joined[50:].any()
    few = held_out(corpus, phase, IdVocabulary(), max_rows=10**6, batch_size=64, seed=3)
    real = sum(int((batch["segment_ids"] > 0).any(1).sum()) for batch in few)
    fixed = BatchBuilder([corpus], IdVocabulary(), phase, seed=3, phase_index=-1)
    assert real == fixed.rows_per_epoch()
