"""Every state that a kill, a copy or a bad disk can leave a run's folder in, sorted as promised."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from albert_jax.checkpoint import digest, folder
from albert_jax.checkpoint.digest import Layout
from albert_jax.errors import CheckpointError


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def _steps(run: Path) -> list[int]:
    return sorted(int(name) for name in os.listdir(run / "checkpoints"))


def _weights(run: Path, step: int) -> Path:
    """The largest file of a step: its arrays."""
    found = (path for path in (run / "checkpoints" / str(step)).rglob("*") if path.is_file())
    return max(found, key=lambda path: path.stat().st_size)


def _flip(path: Path, bit: int = 12) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


def _damage(run: Path, *steps: int) -> None:
    for step in steps:
        _flip(_weights(run, step))


def test_whole(run, lines):
    assert folder.sort(Layout(str(run))) == 30
    assert lines() == []


def test_killed_between_manifest_and_note(run, lines):
    (run / "whole" / "30").unlink()
    assert folder.sort(Layout(str(run))) == 30
    assert lines() == []
    assert folder.sort(Layout(str(run))) == 30
    assert (run / "whole" / "30").is_file()


def test_killed_between_commit_and_manifest(run, lines):
    (run / "whole" / "30").unlink()
    (run / "checkpoints" / "30" / "manifest.json").unlink()
    assert folder.sort(Layout(str(run))) == 20
    assert _steps(run) == [10, 20]
    assert (run / "unfinished" / "30" / "state").is_dir()
    (line,) = lines()
    assert "step 30 was not finished" in line and "going on from step 20" in line


def test_killed_before_the_commit(run, lines):
    shutil.copytree(run / "checkpoints" / "30", run / "checkpoints" / "40.orbax-checkpoint-tmp-7")
    assert folder.sort(Layout(str(run))) == 30
    assert _steps(run) == [10, 20, 30]
    assert len(lines()) == 1 and "interrupted save of step 40" in lines()[0]


def test_damaged(run, lines):
    _damage(run, 30)
    assert folder.sort(Layout(str(run))) == 20
    assert _steps(run) == [10, 20]
    why = json.loads((run / "damaged" / "30" / "why.json").read_text())
    assert why["step"] == 30 and "does not have its digest" in why["failed"]
    assert (run / "damaged" / "30" / "step" / "manifest.json").is_file()
    (line,) = lines()
    assert "checkpoint 30 is damaged" in line and "using the one before" in line
    assert folder.sort(Layout(str(run))) == 20
    assert len(lines()) == 1


def test_damaged_twice_keeps_both(run, template, lines):
    for _ in range(2):
        _damage(run, 30)
        folder.sort(Layout(str(run)))
        shutil.copytree(template / "checkpoints" / "30", run / "checkpoints" / "30")
        shutil.copy(template / "whole" / "30", run / "whole" / "30")
    assert sorted(os.listdir(run / "damaged")) == ["30", "30.2"]


@pytest.mark.parametrize("moved", [False, True])
def test_killed_inside_the_quarantine(run, lines, moved):
    target = run / "damaged" / "30"
    target.mkdir(parents=True)
    (target / "why.json").write_text(json.dumps({"step": 30, "failed": "x", "moved": False}))
    _damage(run, 30)
    if moved:
        (run / "checkpoints" / "30").rename(target / "step")
    assert folder.sort(Layout(str(run))) == 20
    assert os.listdir(run / "damaged") == ["30"]
    assert json.loads((target / "why.json").read_text())["moved"] is True
    assert not (run / "whole" / "30").exists()


def test_a_note_without_its_step(run, lines):
    shutil.rmtree(run / "checkpoints" / "30")
    assert folder.sort(Layout(str(run))) == 20
    assert "the whole step is gone" in lines()[0]


def test_every_checkpoint_damaged_is_refused_each_time(run, lines):
    _damage(run, 10, 20, 30)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="every checkpoint is damaged") as caught:
            folder.sort(Layout(str(run)))
        assert caught.value.exit_code == 4
    assert sorted(os.listdir(run / "damaged")) == ["10", "20", "30"]


def test_only_the_first_save_unfinished_starts_anew(run, lines):
    for step in (10, 20):
        shutil.rmtree(run / "checkpoints" / str(step))
    shutil.rmtree(run / "whole")
    (run / "checkpoints" / "30" / "manifest.json").unlink()
    assert folder.sort(Layout(str(run))) is None
    assert "going on from step 0" in lines()[0]
    assert folder.sort(Layout(str(run))) is None


def test_several_steps_of_somebody_else_are_refused(run):
    shutil.rmtree(run / "whole")
    for step in (10, 20, 30):
        (run / "checkpoints" / str(step) / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="steps 10, 20, 30 and no manifest"):
            folder.sort(Layout(str(run)))
    assert _steps(run) == [10, 20, 30]


def test_a_copy_cut_off(run, lines):
    """The newest step arrived without its weights: the one before; alone: refused."""
    _weights(run, 30).unlink()
    (run / "whole" / "30").unlink()
    assert folder.sort(Layout(str(run))) == 20
    assert (run / "unfinished" / "30").is_dir()
    _weights(run, 20).unlink()
    shutil.rmtree(run / "checkpoints" / "10")
    shutil.rmtree(run / "whole")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="is gone.*copy that was cut off"):
            folder.sort(Layout(str(run)))


def test_an_empty_newest_folder_and_strays(run, lines):
    (run / "checkpoints" / "99").mkdir()
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "007").mkdir()
    assert folder.sort(Layout(str(run))) == 30
    told = "\n".join(lines())
    assert "step 99 was not finished" in told
    assert "007: ignored" in told and "notes.txt: ignored" in told
    assert (run / "checkpoints" / "notes.txt").read_text() == "mine"


def test_only_the_last_unfinished_save_is_kept(run):
    for step in (40, 50):
        (run / "checkpoints" / str(step)).mkdir()
        folder.sort(Layout(str(run)))
    assert os.listdir(run / "unfinished") == ["50"]


@pytest.mark.parametrize("left", ["all", "no note", "half", "nothing"])
def test_a_deletion_cut_off_is_finished(run, lines, left):
    """Retention was killed at any point: the step is gone, and nobody calls it damaged."""
    (run / "retired").mkdir(exist_ok=True)
    (run / "retired" / "10").write_bytes(b"")
    if left != "all":
        (run / "whole" / "10").unlink()
    if left == "half":
        shutil.rmtree(run / "checkpoints" / "10" / "state")
    if left == "nothing":
        shutil.rmtree(run / "checkpoints" / "10")
    assert folder.sort(Layout(str(run))) == 30
    assert _steps(run) == [20, 30]
    assert lines() == [] and os.listdir(run / "retired") == []


def test_older_damage_is_found_when_it_is_needed(run, lines):
    _damage(run, 20)
    assert folder.sort(Layout(str(run))) == 30
    _damage(run, 30)
    assert folder.sort(Layout(str(run))) == 10
    assert sorted(os.listdir(run / "damaged")) == ["20", "30"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"body": 3, "sha256": "x"}', b"[" * 100_000, b"\xff\xfe"]
)
@pytest.mark.parametrize("noted", [True, False])
def test_a_manifest_of_any_bytes_never_fits(run, text, noted):
    (run / "checkpoints" / "30" / "manifest.json").write_bytes(text)
    if not noted:
        (run / "whole" / "30").unlink()
    assert folder.sort(Layout(str(run))) == 20


def test_shares_of_processes_make_one_manifest(run):
    layout = Layout(str(run))
    for index in range(3):
        digest.write_share(layout, 30, index, 3)
    assert digest.collect_shares(layout, 30, 3, 1.0) == digest.digests(layout.step(30))
