"""Runs of every task: they learn, are evaluated and applied, and continue where they stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.finetuning import network
from albert_jax.finetuning.batches import TrainingBatches
from albert_jax.model_io import model as models
from albert_jax.observe.metrics import read_rows
from albert_jax.tasks import registry
from tests import tiny_models
from tests.finetuning.small_runs import TASKS, call, command

EPOCH = 3
"""Steps in which the 12 examples are seen once."""
REMAINING_LOSS = 0.85
"""Share of the first epoch's mean loss that is left in the tenth epoch, at most."""


DAILY = ("classification", "squad-v2")
NAMES = [
    name if name in DAILY else pytest.param(name, marks=pytest.mark.thorough) for name in TASKS
]


@pytest.mark.parametrize("name", NAMES)
def test_task_trains_evaluates_and_predicts(name, data, tmp_path, capsys):
    run, steps = tmp_path / "run", 10 * EPOCH
    if name == "sentence-embedding":  # Its batches of 4 rows hold 12 pairs.
        steps = 10
    arguments = command(data, name, run, "--init", data / "model", "--max-steps", steps)
    if name == "classification":  # Random weights of width 16 learn slowly from the mean.
        arguments += ["--task.pooling", "cls"]
    code, out, err = call(capsys, *arguments, "--task.num-train-epochs", 10)
    assert code == 0, err
    assert f"step {steps} held out:" in out and f"done, {steps} steps now" in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == steps and np.isfinite(losses).all()
    epoch = steps // 10
    assert np.mean(losses[-epoch:]) < REMAINING_LOSS * np.mean(losses[:epoch])
    (held_out,) = [row for row in rows if row["kind"] == "evaluation"]
    config = configfile.load(str(run))
    assert config.task is not None and config.task.metrics[0] in held_out
    assert config.steps == steps and config.model.hidden_size == tiny_models.MODEL.hidden_size

    code, out, err = call(capsys, "evaluate", run)
    assert code == 0, err
    report = json.loads((run / "evaluation.json").read_text())
    assert ("majority" in report) == registry.create(config.task).has_baseline
    (found,) = report["results"]
    assert report["metric"] == config.task.metrics[0]
    assert found["scores"][config.task.metrics[0]] == pytest.approx(
        held_out[config.task.metrics[0]],
        rel=1e-3,  # bfloat16, other batches
    )

    file, _, line = TASKS[name]
    code, out, err = call(capsys, "predict", run, "--input", data / file)
    assert code == 0, err
    predictions = [json.loads(line) for line in out.splitlines()]
    assert len(predictions) == 12
    code, out, err = call(capsys, "predict", run, line)
    assert code == 0, err
    assert set(json.loads(out)) == set(predictions[0])

    code, out, err = call(capsys, "export", run, "--out", tmp_path / "hf")
    if name == "squad-v2":
        assert code == 2 and "Transformers has no class" in err.splitlines()[-1]
        return
    assert code == 0, err
    exported = json.loads((tmp_path / "hf" / "config.json").read_text())
    labels = ("score",) if name == "regression" else getattr(config.task, "labels", ())
    assert exported.get("id2label", {}) == {str(i): label for i, label in enumerate(labels)}


def test_a_run_without_weights_says_so_continues_and_learns(tmp_path, capsys):
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\n" + "".join(
        f"{word} {end}\t{label}\n"
        for label, word in (("good", "fine"), ("bad", "poor"))
        for end in ("day", "house", "road", "meal", "song", "book", "tale", "cup")
    ))  # fmt: skip
    arguments = ["finetune", "--train", train, "--dev", train, "--out", tmp_path / "run",
                 "--model.hidden-size", 32, "--model.intermediate-size", 32,
                 "--task.num-train-epochs", 20, "--phases.0.batch-size", 8,
                 "--optimizer.learning-rate", "5e-3"]  # fmt: skip
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "no --init" in line]
    assert "width 32" in line and "vocabulary of" in line
    assert configfile.load(str(tmp_path / "run")).steps == 40
    assert "accuracy 1.000" in out
    code, out, err = call(capsys, *arguments)
    assert code == 0 and "done (40 of 40 steps)" in out
    code, out, _ = call(capsys, "predict", tmp_path / "run", "fine boat")
    assert json.loads(out)["label"] == "good"


def test_interrupted_equals_uninterrupted(data, tmp_path, monkeypatch, capsys):
    """A run that SIGTERM stops continues to the same bits as one that nothing stops."""

    def arguments(out: Path) -> list[str]:
        return command(
            data, "classification", out, "--init", data / "model",
            "--task.num-train-epochs", 10, "--max-steps", 30, "--run.save-steps", 30,
            "--model.hidden-dropout-prob", 0.1, "--run.eval-steps", 0,
        )  # fmt: skip

    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    code, _, err = call(capsys, *arguments(whole))
    assert code == 0, err

    make_batch, requested = TrainingBatches.batch, []

    def batch(self, phase, step, rows):
        requested.append(step)
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return make_batch(self, phase, step, rows)

    monkeypatch.setattr(TrainingBatches, "batch", batch)
    code, _, err = call(capsys, *arguments(interrupted))
    assert code == 75, err
    monkeypatch.undo()
    assert 0 < models.load(str(interrupted)).step < 30 and requested.count(5) == 1
    code, _, err = call(capsys, *arguments(interrupted))
    assert code == 0, err

    params, resumed = (models.load(str(run)).params for run in (whole, interrupted))
    assert jax.tree.structure(params) == jax.tree.structure(resumed)
    for expected, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(leaf, expected, strict=True)
    expected, losses = (
        {row["step"]: row["loss"] for row in read_rows(str(run)) if row["kind"] == "train"}
        for run in (whole, interrupted)
    )
    assert losses == expected and len(losses) == 30


def test_a_continued_run_remembers_its_weights(data, tmp_path, capsys):
    run, slow = tmp_path / "run", ["--max-steps", "1", "--optimizer.learning-rate", "1e-9"]
    for start in (["--init", data / "model"], ["--config", run]):
        code, _, err = call(capsys, *command(data, "classification", run, *start, *slow))
        assert code == 0, err
        found, wanted = (models.load(str(path)).params for path in (run, data / "model"))
        for name in ("embeddings", "encoder"):
            for one, other in zip(*map(jax.tree.leaves, (found[name], wanted[name])), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)
        assert json.loads((run / "record.json").read_text())["init"] == str(data / "model")
        for name in ("checkpoints", "complete"):  # The next run begins as this one did.
            shutil.rmtree(run / name)


def test_presets_load_and_name_their_task(tmp_path):
    names = [name for name in configfile.presets() if name.startswith("finetune/")]
    assert "finetune/sst-2" in names and network.SCRATCH in names
    for name in names:
        config = configfile.load(name)
        assert config.task is not None and config.task == registry.get(
            config.task.name
        ).config_class(**vars(config.task))
        (tmp_path / "x.toml").write_text(configfile.dumps(config))
        assert configfile.load(str(tmp_path / "x.toml")) == config


def test_a_config_without_task_has_no_section_for_it():
    assert "task" not in configfile.dumps(Config())
    assert "task" not in dict(configfile.to_dict(Config()))


@pytest.mark.slow
def test_commands_of_the_page(data, weights, tmp_path, monkeypatch, capsys, root):
    """Every command of docs/fine-tuning.md works as it stands there, in few steps."""
    page = (root / "docs" / "fine-tuning.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^ {4}(albert-jax .*)$", page, re.M)
    assert len(commands) >= 6
    # tests/train/test_words_seen.py pretrains with milestones and exports them; downloads are left
    # out.
    left_out = (" pretrain ", "--to babylm", "albert-base-v2")
    commands = [c for c in commands if not any(part in c for part in left_out)]
    if importlib.util.find_spec("onnx") is None:  # an extra
        commands = [line for line in commands if "onnx" not in line]
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / "tiny" / "run").symlink_to(weights)
    (tmp_path / "examples").symlink_to(root / "examples")
    shutil.copy(data / "pairs.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    few = ["--phases.0.batch-size", "4", "--max-steps", "2", "--run.max-eval-samples", "8"]
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] == "finetune":
            words = words + few
        code, _, err = call(capsys, *words)
        assert code == 0, f"{line}\n{err}"
