"""Real processes that talk over Gloo: the same losses, any number on resume, nobody left hanging."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_jax import configfile
from albert_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from albert_jax.errors import ConfigError, DataError, PeerError
from albert_jax.observe.metrics import read_rows
from albert_jax.parallel import agreement, hosts
from albert_jax.parallel.jax_internals import process_count, process_index
from tests import tiny_models

SAME = 2e-6
"""Relative difference of losses between numbers of processes: sums in another order, float32."""
STEPS = 8


@pytest.fixture(scope="module")
def run_config(tmp_path_factory) -> Path:
    """A config file of eight steps of a micro model, dropout included."""
    folder = tmp_path_factory.mktemp("cluster")
    model = tiny_models.MODEL
    config = Config(
        model=type(model)(**{**vars(model), "hidden_dropout_prob": 0.1}),
        data=DataConfig(prepared=(tiny_models.prepared(folder),)),
        phases=(PhaseConfig(steps=STEPS, sequence_length=16, batch_size=8),),
        optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=2),
        compute=ComputeConfig(dtype="float32"),
        run=RunConfig(logging_steps=1, eval_steps=0, max_eval_samples=8, save_steps=3),
    )
    path = folder / "micro.toml"
    path.write_text(configfile.dumps(config))
    return path


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nobody_is_left():
    """A cluster whose test failed is ended by its own parent process."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=120)


def _start(root: Path, run_config: Path, run: Path, processes: int, *more: str, **env: str):
    """Starts a pretraining; `devices` of each process, 1 by default."""
    devices = env.pop("devices", "1")
    cluster = [] if processes == 1 else ["launch/local_processes.py", str(processes)]
    program = [sys.executable, "-m", "tests.parallel.cluster_program"]
    command = [*program, "pretrain", "--config", str(run_config), "--out", str(run), *more]
    # The same programs with slower machine code compile in a third of the time, and once only.
    flags = f"--xla_force_host_platform_device_count={devices} "
    flags += "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(run_config.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    paths = {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    process = subprocess.Popen(
        [sys.executable, *cluster, *command] if cluster else command,
        cwd=root,
        env={**os.environ, **paths, **cache, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    return process


def _run(*arguments, expected: int = 0, **env: str) -> str:
    process = _start(*arguments, **env)
    _, err = process.communicate(timeout=300)
    assert process.returncode == expected, err[-3000:]
    return err


def _losses(run: Path) -> list[float]:
    rows = [row for row in read_rows(str(run)) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    return [row["loss"] for row in rows]


def _compare(one: Path, other: Path) -> None:
    pairs = list(zip(_losses(one), _losses(other), strict=True))
    assert len({a for a, _ in pairs}) == STEPS
    assert max(abs(a - b) / abs(a) for a, b in pairs) <= SAME


def test_two_processes_are_one_with_two_devices_and_one_goes_on_alone(root, run_config, tmp_path):
    _run(root, run_config, tmp_path / "one", 1, devices="2")
    _run(root, run_config, tmp_path / "two", 2, STOP_AT="5", expected=75)
    _run(root, run_config, tmp_path / "two", 1, devices="2")
    _compare(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_four_processes_and_then_two(root, run_config, tmp_path):
    _run(root, run_config, tmp_path / "one", 1, devices="8")
    _run(root, run_config, tmp_path / "four", 4, STOP_AT="4", expected=75, devices="2")
    _run(root, run_config, tmp_path / "four", 2, devices="4")
    _compare(tmp_path / "one", tmp_path / "four")


def _children(parent: int) -> list[int]:
    """Process ids of the processes of a local cluster, in their order."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in found]


def _wait_for_a_step(run: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (run / "complete").is_dir() and any((run / "complete").iterdir()):
            return
        time.sleep(0.2)
    raise AssertionError("no checkpoint came")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_a_dead_or_stuck_process_is_named_and_the_run_goes_on(
    root, run_config, tmp_path, victim, number
):
    _run(root, run_config, tmp_path / "one", 1, devices="2")
    process = _start(root, run_config, tmp_path / "run", 2, SLOW="1")
    _wait_for_a_step(tmp_path / "run")
    children = _children(process.pid)
    os.kill(children[victim], number)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    print(f"left after {time.monotonic() - began:.0f} s")
    assert process.returncode == PeerError.exit_code, err[-3000:]
    assert re.search(
        rf"process {victim}\b.* (was ended by SIGKILL|is gone or stopped|is stopped)", err
    )
    _run(root, run_config, tmp_path / "run", 2)
    _compare(tmp_path / "one", tmp_path / "run")


@pytest.mark.slow
def test_a_signal_to_the_parent_saves_and_stops_all(root, run_config, tmp_path):
    process = _start(root, run_config, tmp_path / "run", 2, SLOW="1")
    _wait_for_a_step(tmp_path / "run")
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err[-3000:]


@pytest.mark.slow
def test_an_error_of_all_ends_all(root, run_config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "unknown.txt").write_text("")
    err = _run(root, run_config, tmp_path / "run", 2, expected=4)
    assert "not a run folder" in err


def test_a_coordinator_that_is_not_there_is_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for name, value in zip(
        (hosts.COORDINATOR, hosts.COUNT, hosts.INDEX), (address, "2", "1"), strict=True
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hosts, "LOCAL_SECONDS", 0.2)
    with pytest.raises(PeerError, match=f"coordinator {address} cannot be reached .*port open"):
        hosts.initialize_distributed()


@pytest.mark.parametrize(
    ("coordinator", "count", "index"),
    [("127.0.0.1:80", "2", "2"), ("nowhere", "2", "0"), ("127.0.0.1:80", "", "0")],
)
def test_variables_that_make_no_cluster_are_refused(monkeypatch, coordinator, count, index):
    monkeypatch.setenv(hosts.COORDINATOR, coordinator)
    monkeypatch.setenv(hosts.COUNT, count)
    monkeypatch.setenv(hosts.INDEX, index)
    with pytest.raises(ConfigError, match="ALBERT_JAX_PROCESS='.*': give HOST:PORT"):
        hosts.initialize_distributed()


def test_a_process_alone_has_nothing_to_join(monkeypatch):
    for name in (hosts.COORDINATOR, hosts.COUNT, hosts.INDEX):
        monkeypatch.delenv(name, raising=False)
    hosts.initialize_distributed()
    assert (process_index(), process_count()) == (0, 1)
    agreement.agree("anything", {"a": "1"})


class _Store:
    """The coordination service's key-value store, without waiting."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str) -> None:
        self.values[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        if key not in self.values:
            raise RuntimeError("DEADLINE_EXCEEDED")
        return self.values[key]


def _agree(monkeypatch, store: _Store, index: int, facts: dict[str, str]) -> None:
    monkeypatch.setattr(agreement, "coordination_client", lambda: store)
    monkeypatch.setattr(agreement, "_counter", itertools.count())  # each process has its own
    monkeypatch.setattr(agreement, "process_index", lambda: index)
    monkeypatch.setattr(agreement, "process_count", lambda: 2)
    agreement.agree("facts", facts)


def test_every_process_gets_the_error_of_process_0(monkeypatch):
    """Its class may be one that only process 0 has imported: the nearest common one is raised."""

    class Local(DataError):
        pass

    def fail():
        raise Local("shard 3 is damaged")

    store = _Store()
    monkeypatch.setattr(agreement, "coordination_client", lambda: store)
    monkeypatch.setattr(agreement, "process_count", lambda: 2)
    for index, kind in ((0, Local), (1, DataError)):
        monkeypatch.setattr(agreement, "process_index", lambda index=index: index)
        with pytest.raises(kind, match="shard 3 is damaged") as caught:
            agreement.on_process_0("work", fail, "key")
        assert caught.type is kind


def test_a_process_that_differs_is_named_with_both_values(monkeypatch):
    facts = {"optimizer.learning_rate": "0.01", "package jax": "0.10.2"}
    line = "process 1 .* package jax = 0.9.0, process 0 has 0.10.2"
    for other, expected in (
        (facts, contextlib.nullcontext()),
        ({**facts, "package jax": "0.9.0"}, pytest.raises(ConfigError, match=line)),
    ):
        store = _Store()
        with pytest.raises(PeerError):  # process 0 has not compared them yet
            _agree(monkeypatch, store, 1, other)
        for index, own in ((0, facts), (1, other)):
            with expected:
                _agree(monkeypatch, store, index, own)


def test_a_process_that_does_not_answer_is_named(monkeypatch):
    with pytest.raises(
        PeerError, match="process 1 did not answer within 300 s .*facts.*see its last line"
    ):
        _agree(monkeypatch, _Store(), 0, {})


@pytest.mark.slow
def test_one_failed_process_ends_the_others(root):
    code = "import os, sys, time; time.sleep(0 if os.environ['ALBERT_JAX_PROCESS'] == '1' else 60)"
    for end, expected in (("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 6), ("os.abort()", 6)):
        command = [sys.executable, "-c", f"{code}; {end}"]
        program = (
            f"import sys; sys.path.insert(0, {str(root / 'launch')!r}); import local_processes; "
            "local_processes.PATIENCE_SECONDS = 0.1; "
            f"sys.exit(local_processes.run(2, {command!r}))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              timeout=50)  # fmt: skip
        assert done.returncode == expected
        assert ("process 1 was ended by SIG" in done.stderr) == (expected == 6)
