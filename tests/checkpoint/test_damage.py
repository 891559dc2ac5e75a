"""One bit, one cut, one missing file anywhere in the newest checkpoint: noticed every time.

By default a few of each; ``-m slow`` does 100 of each kind, and restores through Orbax after
ten of each.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax.checkpoint import recovery
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.checkpoint.manifest import Layout
from tests.checkpoint.programs import finish, start


def _flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _truncate(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def _zero(path: Path, draw: random.Random) -> None:
    """Up to 4 KiB zeroed, as a lost disk block; a zeroed zero would be no damage."""
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data))
    while not any(data[start : start + 4096]):
        start = draw.randrange(len(data))
    data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    path.write_bytes(data)


def _remove(path: Path, draw: random.Random) -> None:
    path.unlink()


KINDS = {"flip": _flip, "truncate": _truncate, "zero": _zero, "remove": _remove}


def _cases(count: int) -> list[tuple[str, int]]:
    return [(kind, number) for kind in KINDS for number in range(count)]


def _victim(run: Path, number: int) -> Path:
    """Every file of step 30 in turn, its marker too."""
    step = run / "checkpoints" / "30"
    every = sorted(path for path in step.rglob("*") if path.is_file()) + [run / "complete" / "30"]
    return every[number % len(every)]


def _hurt(run: Path, kind: str, number: int) -> Path:
    victim = _victim(run, number)
    KINDS[kind](victim, random.Random(f"{kind} {number}"))
    return victim


def _check(template: Path, tmp_path: Path, kind: str, numbers: range) -> None:
    for number in numbers:
        run = tmp_path / f"{kind}-{number}"
        shutil.copytree(template, run)
        victim = _hurt(run, kind, number)
        newest = recovery.recover(Layout(str(run)))
        if victim == run / "complete" / "30" and kind == "remove":
            # A missing marker is what a kill leaves; the manifest then vouches for every byte.
            assert newest == 30
        else:
            assert newest == 20, f"{kind} {number}: {victim} was not noticed"
            assert (run / "damaged" / "30" / "why.json").is_file()
        shutil.rmtree(run)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_each_file_is_noticed(template, tmp_path, kind):
    files = sum(path.is_file() for path in (template / "checkpoints" / "30").rglob("*")) + 1
    _check(template, tmp_path, kind, range(files))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_damages_of_each_kind_are_noticed(template, tmp_path, kind):
    _check(template, tmp_path, kind, range(1000, 1100))


@pytest.mark.slow
@pytest.mark.parametrize("kind, number", _cases(10))
def test_the_run_goes_on_from_the_one_before(run, make_state, kind, number):
    for path in (run / "complete" / "30", *(run / "checkpoints" / "30").rglob("manifest.json")):
        assert path.is_file()
    _hurt(run, kind, number)
    checkpoints = Checkpoints(str(run), keep=5, best=None)
    restored = checkpoints.restore(make_state(0))
    assert restored is not None and restored.step == 20
    expected = make_state(20)
    for found, wanted in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(expected), strict=True
    ):
        assert np.array_equal(found, wanted)
    checkpoints.save(30, make_state(30), {})
    checkpoints.close()
    assert checkpoints.steps() == [10, 20, 30]


SAVER = """
import sys, jax.numpy as jnp
from albert_jax.checkpoint.lock import RunLock
from albert_jax.checkpoint.manager import Checkpoints
def state(v): return {"w": jnp.full((400, 1000), v), "step": jnp.int32(v)}
with RunLock(sys.argv[1]):
    checkpoints = Checkpoints(sys.argv[1], keep=2, best=None)
    restored = checkpoints.restore(state(0))
    step = 0
    if restored is not None:
        step = restored.step
        assert int(restored.state["step"]) == step
        assert (restored.state["w"] == step).all()
    print("at", step, flush=True)
    while True:
        step += 1
        checkpoints.save(step, state(step), {"step": step})
        print("saving", step, flush=True)
        if len(sys.argv) > 2 and step >= int(sys.argv[2]): break
    checkpoints.close()
"""


def _kill_while_saving(run: Path, rounds: int) -> None:
    """kill -9 at random moments of back-to-back saves: never a lost or a false checkpoint."""
    draw = random.Random(0)
    promised = 0
    for _ in range(rounds):
        process = start(SAVER, run)
        assert process.stdout is not None
        first = process.stdout.readline().split()
        assert first[:1] == ["at"], process.communicate()[1][-3000:]
        assert int(first[1]) >= promised
        for _ in range(draw.randrange(1, 4)):
            # save(k) returns only after save(k - 1) is complete
            promised = int(process.stdout.readline().split()[1]) - 1
        time.sleep(draw.random() * 0.12)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    printed = finish(start(SAVER, run, promised + 3))
    assert int(printed.split()[1]) >= promised


def test_kill_while_saving(tmp_path):
    _kill_while_saving(tmp_path / "run", 3)


@pytest.mark.slow
def test_kill_while_saving_twenty_times(tmp_path):
    _kill_while_saving(tmp_path / "run", 20)


KILLED_AT = """
import os, signal, sys
from unittest import mock
import jax.numpy as jnp
from albert_jax import files
from albert_jax.checkpoint import manifest
from albert_jax.checkpoint.manager import Checkpoints
def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
module, name = {"digests": (manifest, "digests"), "complete": (manifest, "complete"),
    "marker": (manifest, "write_marker"), "retention": (manifest, "delete"),
    "deletion": (files, "delete_tree")}[sys.argv[2]]
checkpoints = Checkpoints(sys.argv[1], keep=1, best=None)
checkpoints.save(1, {"w": jnp.ones(5)}, {})
checkpoints.wait()
with mock.patch.object(module, name, kill):
    checkpoints.save(2, {"w": jnp.ones(5)}, {})
    checkpoints.wait()
"""


@pytest.mark.parametrize(
    "moment, step",
    [("digests", 1), ("complete", 1), ("marker", 2), ("retention", 2), ("deletion", 2)],
)
def test_killed_at_each_moment_between_commit_and_retention(tmp_path, moment, step):
    finish(start(KILLED_AT, tmp_path, moment), -signal.SIGKILL)
    assert recovery.recover(Layout(str(tmp_path))) == step
    assert recovery.recover(Layout(str(tmp_path))) == step
    assert not (tmp_path / "damaged").exists()
