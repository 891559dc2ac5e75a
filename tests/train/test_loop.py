"""The loop with a task of a few parameters: every way out closes what is open."""

from __future__ import annotations

import dataclasses
import struct
import sys
import threading

import jax
import numpy as np
import pytest

from albert_jax import files
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import RunConfig
from albert_jax.errors import CheckpointError, DataError, NumericsError, Stopped
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console
from albert_jax.observe.metrics import MetricsWriter, read_rows
from albert_jax.parallel.mesh import make_mesh
from albert_jax.train import loop
from albert_jax.train.report import Report
from albert_jax.train.task import TrainingTask
from tests.stopping import stop_after
from tests.train.test_step import CONFIG, PARAMS, toy, toy_batch

RUN = RunConfig(logging_steps=1, eval_steps=0, save_steps=5, profile_steps=(1, 100))
TRAIN = dataclasses.replace(CONFIG, run=RUN)


def task_of(wrong_batch) -> TrainingTask:
    """A task that trains on ones; `wrong_batch` gives the batches of steps 8, 9, ..."""

    def batches(phase, first, rows):
        for step in range(first, TRAIN.steps):
            batch = toy_batch(1.0) if step < 7 else wrong_batch()
            yield batch | {"input_ids": np.zeros((8, 4), np.int32)}

    return TrainingTask(
        name="toy",
        abstract_params=PARAMS,
        initial_params=lambda: PARAMS,
        batches=batches,
        loss=lambda phase: toy,
        evaluation_loss=lambda phase: toy,
        evaluate=lambda phase, evaluator: {},
        count=lambda batch: {"tokens": 32.0, "positions": 32.0},
    )


def fail(error: Exception):
    raise error


class LostLock:
    """A lock that another run took over before the save of step 10."""

    checks = 0

    def check(self) -> None:
        self.checks += 1
        if self.checks == 2:
            raise CheckpointError("another run holds the folder")


@pytest.fixture
def bucket():
    """A folder in a bucket, where rows and events stand after a flush only."""
    yield "memory://test-loop"
    files.delete_tree("memory://test-loop")


def events(run: str) -> int:
    """The number of complete events in the run's only event file."""
    [name] = files.names(f"{run}/events")
    data, count = files.read(f"{run}/events/{name}"), 0
    while data:
        length = struct.unpack("<Q", data[:8])[0]
        assert len(data) >= length + 16, "the last event is incomplete"
        data, count = data[length + 16 :], count + 1
    return count


@pytest.mark.parametrize(
    ("wrong_batch", "lock", "error"),
    [
        (lambda: fail(DataError("a damaged shard")), None, DataError),
        (lambda: toy_batch(np.nan), None, NumericsError),
        (lambda: toy_batch(1.0), LostLock(), CheckpointError),
        (lambda: fail(RuntimeError("a bug")), None, RuntimeError),
    ],
    ids=["data", "numerics", "lock", "bug"],
)
def test_every_error_closes_record_trace_and_checkpoints(
    tmp_path, bucket, monkeypatch, wrong_batch, lock, error
):
    mesh = make_mesh(TRAIN.parallel, jax.devices()[:1])
    monkeypatch.setattr(loop, "MetricsWriter", lambda _: MetricsWriter(bucket))
    # The save of step 5 is in flight until it is waited for.
    closing, close, complete = threading.Event(), Checkpoints.close, Checkpoints._complete
    monkeypatch.setattr(Checkpoints, "close", lambda self: (closing.set(), close(self)))
    monkeypatch.setattr(Checkpoints, "_complete", lambda *all: closing.wait(60) and complete(*all))
    streams = sys.stdout, sys.stderr
    with pytest.raises(error):
        loop.train(TRAIN, task_of(wrong_batch), str(tmp_path), mesh, record={}, lock=lock)
    rows = read_rows(bucket)
    assert len(rows) > 5  # The save has flushed five.
    assert events(bucket) == 1 + len(rows)  # The first event names the format.
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert 5 in Checkpoints(str(tmp_path), read_only=True).steps()
    assert (sys.stdout, sys.stderr) == streams


def test_a_stop_whose_save_fails_is_no_stop(tmp_path, monkeypatch):
    """The run must not claim that it is saved."""
    mesh = make_mesh(TRAIN.parallel, jax.devices()[:1])
    stop_after(3, monkeypatch.setattr)
    with pytest.raises(Stopped):
        loop.train(
            TRAIN, task_of(lambda: toy_batch(1.0)), str(tmp_path / "a"), mesh, record={}, lock=None
        )
    monkeypatch.setattr(
        Checkpoints, "_complete", lambda *_: fail(OSError(28, "No space left on device"))
    )
    with pytest.raises(Exception, match="No space left on device"):
        loop.train(
            TRAIN, task_of(lambda: toy_batch(1.0)), str(tmp_path / "b"), mesh, record={}, lock=None
        )


def test_losses_are_means_over_the_steps_that_had_something_to_predict():
    config = dataclasses.replace(TRAIN, run=dataclasses.replace(RUN, logging_steps=3))
    report = Report(config, task_of(None), Clock(), Console(quiet=True), None)
    fixed = {"learning_rate": 0.1, "grad_norm": 1.0, "skipped": 0, "skipped_in_a_row": 0}
    for step, (sop, pairs) in enumerate([(0.8, 2.0), (0.6, 2.0), (0.0, 0.0)], start=1):
        values = {"loss": 2.0, "sop_loss": sop, "sop_weights": pairs, "toy_loss": 1.0}
        report.step(step, fixed | values, {"input_ids": np.zeros((8, 4), np.int32)})
    report.flush()
    row = report._recent_rows[-1]
    found = {name: row[name] for name in ("loss", "sop_loss", "toy_loss")}
    assert found == pytest.approx({"loss": 2.0, "sop_loss": 0.7, "toy_loss": 1.0})


def test_speed_and_goodput_leave_compilation_out_and_the_cost_does_not(tmp_path):
    now = [0.0]
    clock = Clock(now=lambda: now[0])
    run = dataclasses.replace(RUN, logging_steps=3, price_per_hour=36.0)
    config = dataclasses.replace(TRAIN, run=run)
    report = Report(config, task_of(None), clock, Console(quiet=True), None)
    values = {"loss": 1.0, "learning_rate": 0.1, "grad_norm": 1.0, "skipped": 0,
              "skipped_in_a_row": 0, "toy_correct": 3.0, "toy_weights": 4.0,
              "unweighted_correct": 3.0}  # fmt: skip
    for step, (stage, seconds) in enumerate(
        [("compilation", 6.0), ("step", 1.0), ("step", 3.0)], start=1
    ):
        with clock.stage(stage):
            now[0] += seconds
            # These rows are one of the two halves of the batch.
            rows = {"input_ids": np.zeros((4, 4), np.int32)}
            report.step(step, values, rows, compiled=stage == "compilation")
    report.flush()
    row = report._recent_rows[-1]
    # 64 tokens in each of the two steps that took 4 of 10 seconds.
    assert row["tokens_per_second"] == pytest.approx(128 / 4)
    assert row["goodput"] == pytest.approx(0.4)
    assert row["real_token_share"] == 1.0
    assert row["cost"] == pytest.approx(0.1), "ten seconds of 36 an hour"
    # A count of correct answers without its weights is no accuracy.
    assert {name: row[name] for name in row if "accuracy" in name} == {"toy_accuracy": 0.75}
    config = dataclasses.replace(TRAIN, run=dataclasses.replace(RUN, profile_steps=()))
    mesh = make_mesh(config.parallel, jax.devices()[:1])
    task = task_of(lambda: toy_batch(1.0))
    loop.train(config, task, str(tmp_path), mesh, record={}, lock=None)
    first, second, *_ = read_rows(str(tmp_path))
    assert first["tokens_per_second"] == 0.0 < second["tokens_per_second"]
