"""kill -9 at random moments, again and again: the run ends in the same bits."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from albert_jax import configfile
from albert_jax.observe.metrics import read_rows
from tests import tiny_models
from tests.train.test_pretraining import assert_same, micro

pytestmark = pytest.mark.slow

KILLS = 20


def begin(config: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    """`albert-jax pretrain` in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        # Compiling anew after every kill would be most of the test.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "albert_jax", "pretrain", "--config", str(config)]
    return subprocess.Popen([*command, "--out", str(out)], env=environment)


def last_step(run: Path) -> int:
    """Of the newest whole line of the record."""
    rows = read_rows(str(run))
    return int(rows[-1]["step"]) if rows else 0  # type: ignore[call-overload]


@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing(tmp_path):
    config = micro(tiny_models.prepared(tmp_path))
    phases = tuple(dataclasses.replace(phase, steps=1500) for phase in config.phases)
    settings = dataclasses.replace(config.run, logging_steps=10, save_steps=15, eval_steps=300)
    config = dataclasses.replace(config, phases=phases, run=settings)
    path = tmp_path / "config.toml"
    path.write_text(configfile.dumps(config))

    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    assert begin(path, whole, cache).wait() == 0

    moments = random.Random(0)
    for _ in range(KILLS):
        before = last_step(killed)
        process = begin(path, killed, cache)
        # Somewhere behind the first new steps; every other time while a save is under way.
        wanted = before + moments.randrange(10, 120)
        in_a_save = moments.random() < 0.5
        while process.poll() is None and last_step(killed) < wanted:
            time.sleep(0.02)
        patience = time.monotonic() + 1.0
        while in_a_save and time.monotonic() < patience:
            if list(killed.glob("checkpoints/*tmp*")):
                break
            time.sleep(0.001)
        time.sleep(moments.random() * 0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert last_step(killed) < config.steps, "the run was over before the last kill"
    assert begin(path, killed, cache).wait() == 0
    assert_same(whole, killed, config)
