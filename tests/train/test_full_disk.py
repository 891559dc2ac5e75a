"""A disk that is full, by bytes and by inodes, over many sizes: one line, and an exact next start.

Mounting a small disk needs root; without it the tests are skipped.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from albert_jax import configfile
from albert_jax.config import Config
from tests import tiny_models
from tests.train.ended import run_to_end, temporary_files
from tests.train.test_pretraining import assert_same, micro

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """30 steps with a save after every fifth."""
    made = micro(tiny_models.prepared(tmp_path_factory.mktemp("data")))
    run = dataclasses.replace(made.run, save_steps=5, eval_steps=10, save_total_limit=2)
    phases = (dataclasses.replace(made.phases[0], steps=30),)
    return dataclasses.replace(made, phases=phases, run=run)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(disk: Path, options: str) -> None:
    """Gives the mounted disk another size."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


BYTES = [f"size={size}k,nr_inodes=100000" for size in range(80, 580, 50)]
INODES = [f"size=64m,nr_inodes={count}" for count in range(20, 110, 8)]
TOO_SMALL = (BYTES[0], INODES[0])
"""Disks on which not even the first save has room."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", BYTES + INODES)
def test_a_full_disk_is_one_line(config, whole, disk, tmp_path, options):
    (tmp_path / "config.toml").write_text(configfile.dumps(config))
    arguments = ["pretrain", "--config", str(tmp_path / "config.toml"), "--out", str(disk / "run")]
    resize(disk, options)
    ended = run_to_end(arguments, tmp_path)
    assert ended.code in ((7,) if options in TOO_SMALL else (0, 7)), ended.err[-3000:]
    print(options, "code", ended.code)
    assert ended.silent_seconds < 30 and not ended.processes
    assert "Traceback" not in ended.err and len(ended.err.splitlines()) < 12, ended.err[-3000:]
    if ended.code:
        assert ended.last_line.startswith("albert-jax: "), ended.err[-3000:]
    assert not temporary_files(disk)
    resize(disk, "size=64m,nr_inodes=100000")
    assert run_to_end(arguments, tmp_path).code == 0
    assert_same(whole, disk / "run", config)
