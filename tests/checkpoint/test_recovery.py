"""Every state in which a kill, a copy or a bad disk can leave the folder of a run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from albert_jax.checkpoint import manifest, recovery
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.checkpoint.manifest import Layout
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


def test_complete(run, lines):
    assert recovery.recover(Layout(str(run))) == 30
    assert lines() == []


def test_killed_between_manifest_and_marker(run, lines):
    (run / "complete" / "30").unlink()
    half_written = run / "complete" / "30.0123abcd.tmp"
    half_written.write_bytes(b"")
    assert recovery.recover(Layout(str(run))) == 30
    assert lines() == [] and not half_written.exists()
    assert recovery.recover(Layout(str(run))) == 30
    assert (run / "complete" / "30").is_file()


def test_killed_between_commit_and_manifest(run, lines):
    (run / "complete" / "30").unlink()
    (run / "checkpoints" / "30" / "manifest.json").unlink()
    assert recovery.recover(Layout(str(run))) == 20
    assert _steps(run) == [10, 20]
    (line,) = lines()
    assert "step 30 was not finished" in line and "continuing from step 20" in line


def test_killed_before_the_commit(run, lines):
    shutil.copytree(run / "checkpoints" / "30", run / "checkpoints" / "40.orbax-checkpoint-tmp-7")
    assert recovery.recover(Layout(str(run))) == 30
    assert _steps(run) == [10, 20, 30]
    assert len(lines()) == 1 and "interrupted save of step 40" in lines()[0]


def test_damaged(run, lines):
    _damage(run, 30)
    assert recovery.recover(Layout(str(run))) == 20
    assert _steps(run) == [10, 20]
    why = json.loads((run / "damaged" / "30" / "why.json").read_text())
    assert why["step"] == 30 and "does not match its digest" in why["failed"]
    assert (run / "damaged" / "30" / "step" / "manifest.json").is_file()
    (line,) = lines()
    assert "checkpoint 30 is damaged" in line and "using the one before" in line
    assert recovery.recover(Layout(str(run))) == 20
    assert len(lines()) == 1


def test_damaged_twice_keeps_both(run, template, lines):
    for _ in range(2):
        _damage(run, 30)
        recovery.recover(Layout(str(run)))
        shutil.copytree(template / "checkpoints" / "30", run / "checkpoints" / "30")
        shutil.copy(template / "complete" / "30", run / "complete" / "30")
    assert sorted(os.listdir(run / "damaged")) == ["30", "30.2"]


@pytest.mark.parametrize("moved", [False, True])
def test_killed_inside_the_quarantine(run, lines, moved):
    target = run / "damaged" / "30"
    target.mkdir(parents=True)
    reason = json.dumps({"step": 30, "failed": "the first reason"})
    (target / "why.json").write_text(reason)
    _damage(run, 30)
    if moved:
        (run / "checkpoints" / "30").rename(target / "step")
    assert recovery.recover(Layout(str(run))) == 20
    assert os.listdir(run / "damaged") == ["30"] and (target / "step").is_dir()
    assert not moved or (target / "why.json").read_text() == reason
    assert not (run / "complete" / "30").exists()


def test_a_marker_without_its_step(run, lines):
    shutil.rmtree(run / "checkpoints" / "30")
    assert recovery.recover(Layout(str(run))) == 20
    assert "its folder is gone" in lines()[0]


def test_every_checkpoint_damaged_is_refused_each_time(run, lines):
    _damage(run, 10, 20, 30)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="every checkpoint is damaged") as caught:
            recovery.recover(Layout(str(run)))
        assert caught.value.exit_code == 4
    assert sorted(os.listdir(run / "damaged")) == ["10", "20", "30"]


def test_only_the_first_save_unfinished_starts_anew(run, lines):
    for step in (10, 20):
        shutil.rmtree(run / "checkpoints" / str(step))
    shutil.rmtree(run / "complete")
    (run / "checkpoints" / "30" / "manifest.json").unlink()
    assert recovery.recover(Layout(str(run))) is None
    assert "continuing from step 0" in lines()[0]
    assert recovery.recover(Layout(str(run))) is None


def test_several_steps_of_somebody_else_are_refused(run):
    shutil.rmtree(run / "complete")
    for step in (10, 20, 30):
        (run / "checkpoints" / str(step) / "manifest.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="steps 10, 20, 30 have no manifest"):
            recovery.recover(Layout(str(run)))
    assert _steps(run) == [10, 20, 30]


def test_an_interrupted_copy(run, lines):
    """The newest step arrived without its weights: the one before is used; alone it is refused."""
    _weights(run, 30).unlink()
    (run / "complete" / "30").unlink()
    assert recovery.recover(Layout(str(run))) == 20
    _weights(run, 20).unlink()
    shutil.rmtree(run / "checkpoints" / "10")
    shutil.rmtree(run / "complete")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="every checkpoint is damaged or an interrupted"):
            recovery.recover(Layout(str(run)))
    assert sorted(os.listdir(run / "damaged")) == ["20", "30"]


def test_an_empty_newest_folder_and_strays(run, lines):
    (run / "checkpoints" / "99").mkdir()
    (run / "checkpoints" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "007").mkdir()
    assert recovery.recover(Layout(str(run))) == 30
    assert len(lines()) == 1 and "step 99 was not finished" in lines()[0]
    assert (run / "checkpoints" / "007").is_dir()
    assert (run / "checkpoints" / "notes.txt").read_text() == "mine"


def test_older_damage_is_found_when_it_is_needed(run, lines):
    _damage(run, 20)
    assert recovery.recover(Layout(str(run))) == 30
    _damage(run, 30)
    assert recovery.recover(Layout(str(run))) == 10
    assert sorted(os.listdir(run / "damaged")) == ["20", "30"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"body": 3, "sha256": "x"}', b"[" * 100_000, b"\xff\xfe"]
)
@pytest.mark.parametrize("marked", [True, False])
def test_a_manifest_of_any_bytes_never_fits(run, text, marked):
    (run / "checkpoints" / "30" / "manifest.json").write_bytes(text)
    if not marked:
        (run / "complete" / "30").unlink()
    assert recovery.recover(Layout(str(run))) == 20


def test_what_is_no_folder_is_moved_away_and_named(run, lines):
    steps = run / "checkpoints"
    (steps / "40").write_text("a file")
    os.mkfifo(steps / "50")
    (steps / "60").symlink_to(run / "nowhere")
    assert recovery.newest_complete(Layout(str(run))) == 30
    assert lines() == []
    assert recovery.recover(Layout(str(run))) == 30
    assert _steps(run) == [10, 20, 30]
    assert [line.split()[2] for line in lines()] == ["60", "50", "40"]
    assert all("it is not a folder" in line for line in lines())
    assert (run / "damaged" / "40" / "step").read_text() == "a file"
    assert (run / "damaged" / "60" / "step").is_symlink()


def test_a_stray_file_keeps_no_new_run_from_beginning(tmp_path, lines):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "7").write_text("")
    assert recovery.recover(Layout(str(tmp_path))) is None
    assert "checkpoint 7" in lines()[0]


@pytest.mark.parametrize("with_marker", [False, True])
def test_a_copy_under_another_number_is_named_and_kept(run, lines, with_marker):
    shutil.copytree(run / "checkpoints" / "30", run / "checkpoints" / "6000")
    if with_marker:
        shutil.copy(run / "complete" / "30", run / "complete" / "6000")
    assert recovery.recover(Layout(str(run))) == 30
    assert _steps(run) == [10, 20, 30]
    assert "that of step 30" in lines()[0] and "damaged/6000" in lines()[0]
    moved = run / "damaged" / "6000" / "step"
    assert sorted(p.name for p in moved.rglob("*")) == sorted(
        p.name for p in (run / "checkpoints" / "30").rglob("*")
    )


def test_steps_of_another_program_are_not_deleted(run, lines):
    """One save can be interrupted, not two."""
    for step in ("40", "50"):
        shutil.copytree(run / "checkpoints" / "30", run / "checkpoints" / step)
        (run / "checkpoints" / step / "manifest.json").unlink()
    assert recovery.recover(Layout(str(run))) == 30
    assert sorted(os.listdir(run / "damaged")) == ["40", "50"]
    assert all("another program saved it" in line for line in lines())


def test_linked_steps_are_read_and_their_links_deleted(run, tmp_path, make_state):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for step in (10, 20, 30):
        shutil.move(run / "checkpoints" / str(step), elsewhere / str(step))
        (run / "checkpoints" / str(step)).symlink_to(elsewhere / str(step))
    checkpoints = Checkpoints(str(run), keep=1, best=None)
    restored = checkpoints.restore(make_state(0))
    assert restored is not None and restored.step == 30
    checkpoints.save(40, make_state(40), {})
    checkpoints.close()
    assert _steps(run) == [40] and sorted(os.listdir(run / "complete")) == ["40"]
    assert (elsewhere / "30" / "state").is_dir()


def test_steps_on_another_disk_are_moved_away_whole(run, lines):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == run.stat().st_dev:
        pytest.skip("there is no second disk")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        shutil.move(run / "checkpoints", f"{other}/checkpoints")
        (run / "checkpoints").symlink_to(f"{other}/checkpoints")
        _damage(run, 30)
        before = sorted(p.name for p in (run / "checkpoints" / "30").rglob("*"))
        assert recovery.recover(Layout(str(run))) == 20
        assert _steps(run) == [10, 20]
        moved = run / "damaged" / "30" / "step"
        assert sorted(p.name for p in moved.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [{"step": "30"}, {"files": []}, {"files": {"a": 1}}, {"metrics": {"loss": "low"}},
     {"format": None}, {"files": {"a": {"size": "1", "sha256": "b"}}}],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_other_types_proves_nothing(run, lines, change):
    """Its own digest is right, as anyone can make it."""
    path = run / "checkpoints" / "30" / "manifest.json"
    body = json.loads(path.read_bytes())["body"] | change
    path.write_bytes(manifest._serialize(body))
    (run / "complete" / "30").unlink()
    assert Checkpoints(str(run), keep=1, best="loss", read_only=True).best_step() is not None
    assert recovery.recover(Layout(str(run))) == 20
    assert "manifest.json cannot be read" in lines()[0]
