"""kill -9 again and again, of a run with data workers: it ends in the same bits, nothing is left."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from albert_jax import configfile
from albert_jax.observe.metrics import read_rows
from tests import tiny_models
from tests.train.ended import run_to_end
from tests.train.test_pretraining import assert_same, micro

pytestmark = pytest.mark.slow

KILLS = 20


def last_step(run: Path) -> int:
    """Of the newest whole line of the record."""
    rows = read_rows(str(run))
    return int(rows[-1]["step"]) if rows else 0  # type: ignore[call-overload]


def kill(process: subprocess.Popen[bytes], run: Path, wanted: int, in_a_save: bool) -> None:
    """Kills the process behind the step `wanted`, perhaps as soon as a save is under way."""
    while process.poll() is None and last_step(run) < wanted:
        time.sleep(0.02)
    patience = time.monotonic() + 5.0
    while in_a_save and process.poll() is None and time.monotonic() < patience:
        if list(run.glob("checkpoints/*tmp*")):
            break
        time.sleep(0.001)
    time.sleep(random.random() * 0.05)
    process.kill()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("in_a_save", [False, True], ids=["at any moment", "in a save"])
def test_twenty_kills_change_nothing(tmp_path, in_a_save):
    config = micro(tiny_models.prepared(tmp_path))
    phases = tuple(dataclasses.replace(phase, steps=1500) for phase in config.phases)
    settings = dataclasses.replace(config.run, logging_steps=10, save_steps=15, eval_steps=300)
    workers = dataclasses.replace(config.data, workers=2)
    config = dataclasses.replace(config, phases=phases, run=settings, data=workers)
    path, whole, killed = tmp_path / "config.toml", tmp_path / "whole", tmp_path / "killed"
    path.write_text(configfile.dumps(config))
    arguments = ["pretrain", "--config", str(path), "--out"]
    # Compiling anew after every kill would be most of the test.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    assert run_to_end([*arguments, str(whole)], tmp_path, limit=1200, **cache).code == 0

    moments = random.Random(0)
    for number in range(KILLS):
        wanted = last_step(killed) + moments.randrange(10, 120)
        ended = run_to_end(
            [*arguments, str(killed)], tmp_path, **cache,
            while_running=partial(kill, run=killed, wanted=wanted, in_a_save=in_a_save),
        )  # fmt: skip
        assert ended.code == -signal.SIGKILL, f"kill {number}: {ended.err}"
        assert not ended.processes and not ended.segments, f"kill {number}"
    assert last_step(killed) < config.steps, "the run was over before the last kill"
    last = run_to_end([*arguments, str(killed)], tmp_path, limit=1200, **cache)
    assert last.code == 0 and not last.processes and not last.segments
    assert_same(whole, killed, config)
