"""One run per folder: who is refused, who takes over, and that nobody is fooled by a reused pid."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from albert_jax import files
from albert_jax.checkpoint import lock as locks
from albert_jax.checkpoint.lock import RunLock
from albert_jax.errors import CheckpointError, StorageError
from tests.checkpoint.programs import start

HOLD = """
import sys, time
from albert_jax.checkpoint.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = start(HOLD, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def _lock(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "lock").read_bytes())


def _write(tmp_path: Path, **change) -> dict:
    """A lock as another run left it."""
    with RunLock(str(tmp_path)):
        content = _lock(tmp_path)
    content |= {"token": "other"} | change
    (tmp_path / "lock").write_text(json.dumps(content))
    return content


def test_a_second_run_is_refused_by_name(tmp_path, holder):
    with pytest.raises(CheckpointError, match=rf"pid {holder.pid} on host ") as caught:
        RunLock(str(tmp_path)).__enter__()
    assert os.uname().nodename in str(caught.value)
    assert _lock(tmp_path)["pid"] == holder.pid


def test_a_killed_run_is_taken_over_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)  # and not reaped: a zombie does not hold a folder
    time.sleep(0.3)
    with RunLock(str(tmp_path)) as lock:
        lock.check()
        assert _lock(tmp_path)["pid"] == os.getpid()
    assert files.names(str(tmp_path)) == []


def test_a_reused_pid_does_not_hold_it(tmp_path):
    _write(tmp_path, pid=os.getpid(), started="1")
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["token"] != "other"


def test_another_host_is_waited_for_and_taken_over(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(locks, "STALE_SECONDS", 1.0)
    _write(tmp_path, host="elsewhere", pid=77, renewed=time.time())
    caplog.set_level(logging.WARNING)
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["pid"] == os.getpid()
    waited, took = [record.getMessage() for record in caplog.records]
    assert "pid 77 on host elsewhere" in waited and "waiting up to" in waited
    assert "took over" in took


def test_another_host_that_renews_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE_SECONDS", 5.0)
    content = _write(tmp_path, host="elsewhere", pid=77, renewed=time.time())
    renewed = json.dumps(content | {"renewed": content["renewed"] + 15})
    timer = threading.Timer(0.2, (tmp_path / "lock").write_text, (renewed,))
    timer.start()
    with pytest.raises(CheckpointError, match="pid 77 on host elsewhere"):
        RunLock(str(tmp_path)).__enter__()
    timer.join()


def test_an_old_boot_needs_no_living_pid(tmp_path):
    _write(tmp_path, boot="earlier", pid=1, renewed=time.time() - 3600)
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["pid"] == os.getpid()


def test_a_half_written_lock_gets_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.5)
    (tmp_path / "lock").write_bytes(b'{"host": "el')
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["pid"] == os.getpid()


def test_of_two_that_take_over_only_the_last_gets_it(tmp_path, monkeypatch):
    """The other run had seen the same stale lock, and replaces the new one."""
    other = _write(tmp_path, boot="earlier", pid=77, renewed=time.time() - 3600)
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "lock").write_text(json.dumps(other)))
    with pytest.raises(CheckpointError, match="pid 77 on host .* is already running"):
        RunLock(str(tmp_path)).__enter__()
    assert _lock(tmp_path)["token"] == "other"


def test_it_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.05)
    with RunLock(str(tmp_path)) as lock:
        before = _lock(tmp_path)["renewed"]
        time.sleep(0.4)
        assert _lock(tmp_path)["renewed"] > before
        stolen = json.dumps({"token": "other", "host": "elsewhere", "pid": 5})
        while not lock._lost.is_set():
            (tmp_path / "lock").write_text(stolen)
            time.sleep(0.02)
        with pytest.raises(CheckpointError, match="took this folder over"):
            lock.check()
    assert (tmp_path / "lock").read_text() == stolen


@pytest.mark.parametrize(
    "change",
    [{"pid": "twelve"}, {"pid": None}, {"pid": [1]}, {"pid": "\0"}, {"started": 5},
     {"pid": 10**30}, {"host": 7}, {"host": "elsewhere", "renewed": "yesterday"},
     {"host": "elsewhere", "renewed": [1]}, {"host": "elsewhere", "renewed": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_lock_with_entries_of_other_types_is_taken_over(tmp_path, monkeypatch, change):
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    _write(tmp_path, **({"started": "1"} | change))
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b"null", b'"a"'])
def test_a_lock_that_is_none_is_taken_over(tmp_path, monkeypatch, content):
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)
    (tmp_path / "lock").write_bytes(content)
    with RunLock(str(tmp_path)):
        assert _lock(tmp_path)["pid"] == os.getpid()


def test_a_pipe_in_place_of_the_lock_is_named(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(StorageError, match="lock: a pipe or device where a file is needed"):
        RunLock(str(tmp_path)).__enter__()


def test_a_link_to_a_folder_that_is_gone_is_one_line(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    with pytest.raises(StorageError, match="run is a link to .*scratch, which is not there"):
        RunLock(str(tmp_path / "run")).__enter__()
