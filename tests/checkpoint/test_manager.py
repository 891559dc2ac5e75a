"""Save and restore: exact, strict, on other devices, with retention, never a non-finite number."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.checkpoint import manifest, recovery
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.checkpoint.manifest import Layout
from albert_jax.errors import CheckpointError, NumericsError, StorageError
from tests.checkpoint.programs import finish, start


def _same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture
def restore(make_state):
    def work(run: Path, like=None, *, read_only=False, **options):
        checkpoints = Checkpoints(str(run), keep=5, best=None, read_only=read_only)
        try:
            return checkpoints.restore(make_state(0) if like is None else like, **options)
        finally:
            checkpoints.close()

    return work


def test_nothing_saved_is_none(tmp_path, restore):
    assert restore(tmp_path / "new") is None


def test_the_newest_comes_back_exactly(run, make_state, restore):
    restored = restore(run)
    assert restored.step == 30
    assert restored.record == {"note": "step 30"}
    assert _same(restored.state, make_state(30))


def test_a_certain_step_and_a_part_of_it(run, make_state, restore):
    like = {"params": jax.eval_shape(lambda: make_state(0).params)}
    restored = restore(run, like, step=10, partial=True, read_only=True)
    assert _same(restored.state, {"params": make_state(10).params})
    with pytest.raises(CheckpointError, match="no checkpoint of step 15; it has: 10, 20, 30"):
        restore(run, step=15)


def test_reading_changes_nothing(run, restore):
    (run / "checkpoints" / "30" / "state" / "_METADATA").write_bytes(b"damaged")
    (run / "checkpoints" / "40").mkdir()
    before = sorted(str(path) for path in run.rglob("*"))
    assert restore(run, read_only=True).step == 20
    assert sorted(str(path) for path in run.rglob("*")) == before


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: s._replace(params={"dense": {"kernel": s.params["dense"]["kernel"]}}),
            "params/dense/bias was saved but is not in the requested state",
        ),
        (lambda s: s._replace(moments=(*s.moments, jnp.ones(2))), "moments/2 was not saved"),
        (lambda s: s._replace(step=jnp.float32(0)), "step is int32, not float32"),
        (
            lambda s: s._replace(moments=({"kernel": jnp.ones((64, 97))}, {})),
            r"moments/0/kernel has shape \(64, 96\), not \(64, 97\)",
        ),
    ],
)
def test_another_model_is_refused_by_leaf(run, change, message, make_state, restore):
    with pytest.raises(CheckpointError, match=message):
        restore(run, change(make_state(0)))
    assert sorted(os.listdir(run / "checkpoints")) == ["10", "20", "30"]


def test_retention_keeps_the_newest_and_the_best(tmp_path, make_state, restore):
    checkpoints = Checkpoints(str(tmp_path), keep=2, best="loss")
    for step, loss in enumerate((3.0, 1.0, 2.0, 4.0, 5.0), start=1):
        checkpoints.save(step, make_state(step), {}, {"loss": loss})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2
    with pytest.raises(CheckpointError, match="step 3 cannot be saved after step 5"):
        checkpoints.save(3, make_state(3), {})
    checkpoints.close()
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4", "5"]
    assert _same(restore(tmp_path).state, make_state(5))


def fail(error: BaseException) -> None:
    raise error


def test_an_old_step_that_cannot_be_deleted_costs_no_save(
    tmp_path, make_state, monkeypatch, caplog
):
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, make_state(1), {})
    checkpoints.wait()
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "delete", lambda *_: fail(StorageError("the bucket is busy")))
        checkpoints.save(2, make_state(2), {})
        checkpoints.wait()
    assert "the bucket is busy (an old checkpoint stays" in caplog.text
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(3, make_state(3), {})
    checkpoints.close()
    assert checkpoints.steps() == [3]


def test_metrics_of_a_complete_step_can_be_added(tmp_path, make_state, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path), keep=2, best="loss")
    for step, metrics in ((1, {"loss": 2.0}), (2, {})):
        checkpoints.save(step, make_state(step), {}, metrics)
    checkpoints.add_metrics(2, {"loss": 1.0})
    assert checkpoints.best_step() == 2
    # A kill between manifest and marker leaves a complete step.
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(manifest, "write_marker", lambda *_: fail(KeyboardInterrupt()))
        checkpoints.add_metrics(2, {"other": 1.0})
    checkpoints.close()
    again = Checkpoints(str(tmp_path), keep=2, best="loss")
    assert again.restore(make_state(0)).metrics == {"loss": 1.0, "other": 1.0}


def test_a_run_goes_on_in_its_folder(run, make_state):
    checkpoints = Checkpoints(str(run), keep=2, best=None)
    assert checkpoints.restore(make_state(0)).step == 30
    checkpoints.save(40, make_state(40), {})
    checkpoints.close()
    assert Checkpoints(str(run), keep=2, best=None).steps() == [30, 40]


def test_a_non_finite_state_is_never_kept(run, make_state, restore):
    bad = make_state(40)._replace(moments=({"kernel": jnp.full((64, 96), jnp.nan)}, {}))
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    checkpoints.save(40, bad, {})
    with pytest.raises(NumericsError, match="moments/0/kernel was not finite at step 40"):
        checkpoints.close()
    assert restore(run).step == 30


def test_poisoned_numbers_with_valid_digests_are_refused(run, monkeypatch, make_state, restore):
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    poison = make_state(40)._replace(
        params={"dense": {"kernel": jnp.full((64, 96), jnp.inf), "bias": jnp.ones(96)}}
    )
    with monkeypatch.context() as patch:
        patch.setattr("albert_jax.checkpoint.manager.not_finite", lambda flags: [])
        checkpoints.save(40, poison, {})
        checkpoints.close()
    with pytest.raises(CheckpointError, match="params/dense/kernel holds non-finite"):
        restore(run)


def test_a_newer_format_is_refused_not_quarantined(run, monkeypatch):
    layout = Layout(str(run))
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 2)
        manifest.complete(layout, 30, {})
    with pytest.raises(CheckpointError, match="has format 2, this program reads 1"):
        recovery.recover(layout)
    assert not (run / "damaged").exists()


FULL = """
import resource, sys, json, logging, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logging.basicConfig(format="%(message)s")
import jax.numpy as jnp
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.errors import StorageError
def state(v): return {"w": jnp.full((300, 1000), v)}
checkpoints = Checkpoints(sys.argv[1], keep=3, best=None)
checkpoints.save(1, state(1.0), {})
checkpoints.wait()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
checkpoints.save(2, state(2.0), {})
try:
    checkpoints.wait()
except StorageError as error:
    print(json.dumps(["wait", str(error)]))
checkpoints.save(3, state(3.0), {})
try:
    checkpoints.save(4, state(4.0), {})
    checkpoints.wait()
except StorageError as error:
    print(json.dumps(["save", str(error)]))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
checkpoints.save(5, state(5.0), {})
checkpoints.close()
print(json.dumps(checkpoints.steps()))
"""


def test_a_full_disk_costs_the_save_not_the_run(tmp_path):
    printed = finish(start(FULL, tmp_path))
    first, second, steps = [json.loads(line) for line in printed.splitlines()]
    assert first[0] == "wait" and "the last complete step is 1" in first[1]
    assert "checkpoints/2 could not be saved: File too large" in first[1]
    assert second[0] == "save" and "the last complete step is 1" in second[1]
    assert steps == [1, 5]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "5"]


def test_one_failed_save_is_a_line_and_the_next_one_the_retry(
    run, monkeypatch, caplog, make_state, restore
):
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "complete", _refuse)
        checkpoints.save(40, make_state(40), {})
        checkpoints._saving.join()
    caplog.set_level(logging.WARNING)
    checkpoints.save(50, make_state(50), {})
    checkpoints.close()
    assert "the next save tries again" in caplog.text
    assert restore(run).step == 50
    assert sorted(os.listdir(run / "checkpoints")) == ["10", "20", "30", "50"]


@pytest.mark.parametrize("last", [False, True])
def test_a_save_that_fails_before_its_thread_is_told_too(
    run, monkeypatch, caplog, make_state, last
):
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._store, "save", _refuse)
        checkpoints.save(40, make_state(40), {})
    if last:
        with pytest.raises(StorageError, match="No space left"):
            checkpoints.wait()
        return
    caplog.set_level(logging.WARNING)
    checkpoints.save(50, make_state(50), {})
    checkpoints.close()
    assert "the next save tries again" in caplog.text
    assert checkpoints.steps()[-1] == 50


def _refuse(*_, **__):
    raise StorageError("disk: No space left on device; free space there")


MOVE = """
import sys, jax, numpy as np
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from albert_jax.checkpoint.manager import Checkpoints
n = int(sys.argv[2])
mesh = jax.make_mesh((n,), ("fsdp",), axis_types=(AxisType.Auto,))
values = {"w": np.arange(64 * 8, dtype=np.float32).reshape(64, 8), "b": np.float32(3)}
specs = {"w": P("fsdp"), "b": P()}
shardings = {k: NamedSharding(mesh, specs[k]) for k in specs}
checkpoints = Checkpoints(sys.argv[1], keep=3, best=None)
like = {k: jax.ShapeDtypeStruct(np.shape(v), np.float32, sharding=shardings[k])
        for k, v in values.items()}
restored = checkpoints.restore(like)
if restored is not None:
    for k in values:
        assert restored.state[k].sharding == shardings[k]
        assert np.array_equal(restored.state[k], values[k])
    print("restored", restored.step)
step = 1 + (restored.step if restored else 0)
checkpoints.save(step, {k: jax.device_put(v, shardings[k]) for k, v in values.items()}, {})
checkpoints.close()
"""


def test_any_number_of_devices_restores(tmp_path):
    out = ""
    for devices in (4, 1, 2):
        out += finish(start(MOVE, tmp_path, devices))
    assert out.split() == ["restored", "1", "restored", "2"]


TWO = """
import sys, jax, numpy as np
index, count, port = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
jax.config.update("jax_num_cpu_devices", 2)
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, index,
                               cluster_detection_method="deactivate")
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from albert_jax.checkpoint.manager import Checkpoints
mesh = jax.make_mesh((2 * count,), ("fsdp",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, P("fsdp"))
values = np.arange(64 * 8, dtype=np.float32).reshape(64, 8)
checkpoints = Checkpoints(sys.argv[1], keep=2, best=None)
like = {"w": jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)}
restored = checkpoints.restore(like)
first = 0 if restored is None else restored.step
state = {"w": jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])}
if restored is not None:
    for mine, wanted in zip(restored.state["w"].addressable_shards, state["w"].addressable_shards):
        assert np.array_equal(mine.data, wanted.data)
for step in range(first + 1, first + 4):
    checkpoints.save(step, state, {"processes": count})
checkpoints.close()
print("from", first, "steps", checkpoints.steps(), flush=True)
"""


@pytest.mark.slow
def test_any_number_of_processes_saves_and_restores(tmp_path):
    for count, message in (
        (2, "from 0 steps [2, 3]"),
        (1, "from 3 steps [5, 6]"),
        (2, "from 6 steps [8, 9]"),
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        processes = [start(TWO, tmp_path, index, count, port) for index in range(count)]
        try:
            for process in processes:
                assert finish(process).splitlines()[-1] == message
        finally:
            for process in processes:
                process.kill()
