"""Signals, closed output and hangs, each in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_jax import exits
from albert_jax.train.stop import Stop
from albert_jax.train.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]

LOOP = """
import sys, time
from albert_jax.observe.console import safe_output
from albert_jax.train.stop import Stop
with safe_output(), Stop() as stop:
    print("ready", flush=True)
    for step in range(1, 3000):
        time.sleep(0.01)
        print("step", step, flush=True)
        if stop():
            print("saved after", step, "because of", stop.cause, flush=True)
            sys.exit(75)
"""


def _start(code: str, *arguments: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:  # Gloo prints lines of its own
        if line == "ready\n":
            return
    pytest.fail(process.communicate()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_finishes_the_step(number):
    process = _start(LOOP)
    _ready(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert out.splitlines()[-1].endswith(f"because of {number.name}")
    assert f"{number.name}: finishing this step" in err
    assert "Traceback" not in err


def test_the_second_signal_ends_at_once_even_inside_native_code():
    code = """
import ctypes
from albert_jax.train.stop import Stop
with Stop() as stop:
    print("ready", flush=True)
    while True:
        ctypes.CDLL(None).usleep(400_000_000)  # native, like a long compilation
"""
    process = _start(code)
    _ready(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "leaving at once" in err.splitlines()[-1]


def test_sigterm_again_and_again_lets_the_step_finish():
    process = _start(LOOP.replace("0.01", "1"))
    _ready(process)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # The first one is no hurry either.
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert out.splitlines()[-1].endswith("because of SIGTERM")
    assert err.splitlines() == ["SIGTERM: finishing this step, then saving and leaving"]


def test_a_closed_terminal_does_not_end_it():
    process = _start(LOOP)
    _ready(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_a_reader_that_leaves_does_not_end_it():
    process = _start(LOOP)
    _ready(process)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert "Error" not in process.stderr.read()
    process.stderr.close()


def test_a_signal_that_is_ignored_stays_so():
    process = _start("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + LOOP)
    _ready(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and out.splitlines()[-1].endswith("because of SIGTERM")


def test_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Stop() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 30
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop() and stop.cause == "SIGTERM"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


CLUSTER = """
import sys, time
import jax
index, port, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index, cluster_detection_method="deactivate")
from jax.experimental import multihost_utils
from albert_jax.train import watchdog
from albert_jax.train.stop import Stop
watchdog.PEER_SECONDS, watchdog.BEAT_SECONDS = 3, 0.3
with Stop() as stop, watchdog.Watchdog(4 if kind == "stuck" else 60) as dog:
    for step in range(1, 2000):
        dog.beat("step", step)
        if kind == "stuck" and index == 1 and step == 20:
            dog.beat("data", step - 1)
            time.sleep(600)
        multihost_utils.sync_global_devices("step")
        if step == 5:
            print("ready", flush=True)
        time.sleep(0.02)
        if stop():
            print("stopped at", step, flush=True)
            break
sys.exit(75)
"""


def _cluster(kind: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = [_start(CLUSTER, str(index), port, kind) for index in range(2)]
    for process in processes:
        _ready(process)
    return processes


def _end(processes: list[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    try:
        return [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_after_the_same_step(number):
    processes = _cluster("stop")
    processes[1].send_signal(number)
    answers = _end(processes)
    assert [process.returncode for process in processes] == [75, 75], answers
    assert answers[0][0].splitlines()[-1] == answers[1][0].splitlines()[-1]
    assert answers[0][0].splitlines()[-1].startswith("stopped at")


@pytest.mark.parametrize(
    ("victim", "number", "line"),
    [
        (1, signal.SIGKILL, "process 1 on host .* gone or stopped"),
        (1, signal.SIGSTOP, "process 1 on host .* gone or stopped"),
        (0, signal.SIGSTOP, "process 0 .the coordinator. is stopped"),
    ],
)
@pytest.mark.thorough
def test_a_lost_peer_is_named(victim, number, line):
    processes = _cluster("lost")
    processes[victim].send_signal(number)
    other = processes[1 - victim]
    try:
        _, err = other.communicate(timeout=90)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert other.returncode == 6, err[-3000:]
    assert re.search(line, err.splitlines()[-1]), err[-3000:]


@pytest.mark.thorough
def test_a_stuck_peer_is_named_with_its_stage():
    processes = _cluster("stuck")
    answers = _end(processes)
    assert [process.returncode for process in processes] == [6, 6]
    for _, err in answers:
        assert "most recent call first" in err
    lines = [err.splitlines()[-1] for _, err in answers]
    assert any("process 1 in stage 'data' of step 19" in line for line in lines), lines


def test_a_hang_ends_with_stacks_and_the_stage():
    process = _start(
        """
import time
from albert_jax.train.watchdog import Watchdog
with Watchdog(0.5) as dog:
    dog.beat("data", 7)
    print("ready", flush=True)
    time.sleep(600)
"""
    )
    _ready(process)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "most recent call first" in err
    assert "no progress for 0.5 s in stage 'data' of step 7" in err.splitlines()[-1]


def test_no_watchdog_when_off_and_none_when_it_beats(monkeypatch):
    ended: list[str] = []
    monkeypatch.setattr(exits, "abort", lambda line, **_: ended.append(line))
    with Watchdog(0):
        time.sleep(0.1)
    with Watchdog(0.6) as dog:
        for step in range(8):
            dog.beat("step", step)
            time.sleep(0.15)
    assert ended == []
    with Watchdog(0.2):
        time.sleep(0.5)
    assert len(ended) == 1
