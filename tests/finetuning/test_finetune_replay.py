"""Steps of fine-tuning runs that are done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from albert_jax.observe.metrics import read_rows
from tests.finetuning.small_runs import TASKS, call, command


def replayed(capsys, run: Path, step: int, *more: object) -> dict:
    """The result of a replay, which must be equal to the record."""
    out = run.parent / "step.json"
    code, told, err = call(capsys, "replay", run, "--step", step, "--out", out, *more)
    assert code == 0, err
    assert "equal to the last digit in all fields" in told
    found = json.loads(out.read_text())
    [row] = [r for r in read_rows(str(run)) if r["kind"] == "train" and r["step"] == step]
    assert found["metrics"]["loss"] == row["loss"] and found["equal"] is True
    assert found["metrics"]["grad_norm"] == row["grad_norm"]
    return found


def test_a_step_of_a_classifier(data, tuned, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "moved.tsv"
    shutil.copytree(tuned, run)
    shutil.copy(data / "classes.tsv", moved)
    found = replayed(capsys, run, 2, "--data", moved)
    assert found["start"] == 0 and len(found["rows"]) == 4
    lines = moved.read_text().splitlines()
    for row in found["rows"]:
        [origin] = row["origin"]
        place, label = origin.split(", ")
        text, expected = lines[int(place.rpartition(":")[2]) - 1].split("\t")
        assert place.startswith(f"{moved}:") and label == expected
        shown = "".join(row["text"][1].split()[2:-1]).replace("▁", " ").strip()
        assert shown == text and row["loss"] > 0
    moved.write_text("\n".join([*lines[:-1], "it waits\tyes"]))
    code, _, err = call(capsys, "replay", run, "--step", 2, "--data", moved)
    assert code == 3 and "trained with another data order" in err and "--other-data True" in err
    moved.unlink()
    code, _, err = call(capsys, "replay", run, "--step", 2, "--data", moved)
    assert code == 3 and "say with --data where the run's own examples are" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_step_of_every_task(name, data, tmp_path, capsys):
    run = tmp_path / "run"
    code, _, err = call(capsys, *command(data, name, run, "--init", data / "model"))
    assert code == 0, err
    found = replayed(capsys, run, 1 if name == "sentence-embedding" else 3)
    assert found["rows"] and all(row["text"] for row in found["rows"])
    assert any(row["origin"] for row in found["rows"])
