"""Steps of a run that are done again: the same numbers, and the rows that explain them."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from albert_jax import cli
from albert_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus import shard_writer
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.errors import DataError
from albert_jax.observe import environment
from albert_jax.observe.metrics import read_rows
from albert_jax.train import pretraining, replay
from albert_jax.train.row_measures import RowMeasures
from tests import tiny_models

pytestmark = pytest.mark.thorough

STEPS = 24


def config_for(data: str, **run) -> Config:
    """Two phases with dropout, packing and drawn depths, of which three checkpoints are kept."""
    model = dataclasses.replace(
        tiny_models.MODEL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
    )
    phase = PhaseConfig(
        steps=STEPS // 2, sequence_length=32, batch_size=8, packing=True, depths=(1, 2)
    )
    second = dataclasses.replace(phase, objective=ObjectiveConfig(sentence_order="none"))
    settings = {"logging_steps": 1, "eval_steps": 0, "max_eval_samples": 8, "save_steps": 5}
    return Config(
        model=model,
        data=DataConfig(prepared=(data,)),
        phases=(phase, second),
        optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=2, ema_decay=0.9),
        compute=ComputeConfig(dtype="float32", unroll=True),
        run=RunConfig(**{**settings, "save_total_limit": 3, "watchdog_seconds": 0, **run}),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """A prepared folder."""
    return tiny_models.prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A run with a row for each step, and checkpoints 15, 20 and 24."""
    path = tmp_path_factory.mktemp("run") / "run"
    pretraining.run(config_for(data), str(path))
    assert sorted(int(p.name) for p in (path / "checkpoints").glob("[0-9]*")) == [15, 20, 24]
    return path


def replayed(run: Path, step: int, **options) -> replay.Replay:
    past, opened = pretraining.reopen_run(replay.look_up(str(run), step, **options))
    return replay.replay(replay.check_data(past, opened.facts, allow_other=False), opened)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_recorded(run: Path, step: int) -> None:
    found = replayed(run, step)
    [row] = [row for row in read_rows(str(run)) if row["kind"] == "train" and row["step"] == step]
    assert found.metrics[step]["loss"] == row["loss"]
    assert found.metrics[step]["grad_norm"] == row["grad_norm"]
    assert found.past.compared == step and not found.past.differences_now
    assert found.differences() == {n: [] for n in range(found.start + 1, step + 1)}
    measures, weights = found.measures, found.batch["mlm_weights"].sum(axis=1)
    assert row["grad_norm"] <= measures.grad_norm.sum()
    mlm = "sop_loss" not in found.metrics[step]
    if mlm:
        assert np.sum(measures.loss * weights) / weights.sum() == pytest.approx(row["loss"], 1e-5)


def test_a_step_is_what_was_recorded(run):
    before = content(run)
    assert_recorded(run, 22)
    assert content(run) == before


@pytest.mark.slow
def test_ten_steps_at_random_are_what_was_recorded(run):
    for step in random.Random(0).sample(range(1, STEPS + 1), 10):
        assert_recorded(run, step)


def test_a_record_of_several_steps_is_made_again_as_a_whole(data, tmp_path, capsys):
    """Between two rows, with a checkpoint inside the span: the sums of the row go on."""
    config = config_for(data, logging_steps=4)
    short = dataclasses.replace(config.phases[0], steps=9, depths=(2,))
    pretraining.run(dataclasses.replace(config, phases=(short,)), str(tmp_path / "run"))
    out = tmp_path / "step.json"
    command = ["replay", str(tmp_path / "run"), "--step", "7", "--rows", "2"]
    capsys.readouterr()
    assert cli.main([*command, "--around", "3", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "step 7 (phase 0, depth 2), replayed from the initial state" in told.out
    assert "step 7 has no row of its own" in told.out and "mean of steps 5 to 8" in told.out
    assert "equal to the last digit in all fields of the rows of step 4, 8, 9" in told.out
    assert told.out.count("\nrow ") == 2 and told.out.count("    from document ") >= 2
    found = json.loads(out.read_text())
    assert found["equal"] is True and len(found["rows"]) == 8
    row = next(row for row in read_rows(str(tmp_path / "run")) if row["step"] == 8)
    assert found["recorded"] == row and found["replayed"]["loss"] == row["loss"]
    picture = (tmp_path / "step.json.svg").read_text()
    assert ">gradient norm<" in picture and "mean of 4 steps" in picture

    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss":' + repr(row["loss"]), '"loss":1.5'))
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    assert "replayed from checkpoint 5" in told
    assert "the row of step 8 differs in loss\ndevices, packages and data are those" in told


@pytest.mark.parametrize("order", ["sop", "nsp"])
def test_documents_of_a_row_are_those_whose_text_it_shows(tmp_path, monkeypatch, order):
    """Documents of random letters, in several windows, so that no two share a segment."""
    draw = random.Random(5)
    lines = [" ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(3)) for _ in range(160)]
    (tmp_path / "text.txt").write_text(
        "\n\n".join("\n".join(lines[i : i + 4]) for i in range(0, 160, 4))
    )
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 300)
    path = str(tmp_path / "prepared")
    prepare([str(tmp_path / "text.txt")], tiny_models.vocabulary(), path, PrepareOptions())
    corpus = Corpus.open(path)
    parts, sizes = corpus.lengths(range(corpus.num_windows))
    ends = np.cumsum(sizes)[np.cumsum(parts) - 1]
    ids = corpus.ids(range(corpus.num_windows)).tolist()
    texts = [str(ids[a:b])[1:-1] for a, b in zip([0, *ends], ends, strict=False)]
    assert corpus.num_windows > 3 and len(texts) == corpus.num_documents

    objective = ObjectiveConfig(sentence_order=order, mask_rate=0.0)
    phase = PhaseConfig(sequence_length=48, batch_size=8, packing=True, objective=objective)
    builder = BatchBuilder([corpus], tiny_models.vocabulary(), phase, seed=3, phase_index=0)
    batch, specials = builder.batch(2, np.arange(8)), {0, 2, 3}
    for row in range(8):
        places = builder.documents(2, row)
        assert all(place.source.endswith("text.txt") for place in places)
        expected = []
        for sequence in range(1, batch["segment_ids"][row].max() + 1):
            for segment in range(2):
                within = (batch["segment_ids"][row] == sequence) & (
                    batch["token_type_ids"][row] == segment
                )
                shown = [i for i in batch["input_ids"][row][within].tolist() if i not in specials]
                found = [n for n, text in enumerate(texts) if str(shown)[1:-1] in text]
                expected += [found] if shown else []
        # A segment of a few tokens may stand in several documents.
        known = {place.document for place in places}
        assert all(known & set(found) for found in expected)
        certain = {found[0] for found in expected if len(found) == 1}
        assert certain <= known and len(certain) >= len(known) - 1


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory) -> tuple[Path, int]:
    """A run on regular text with one document of random letters, and its number."""
    folder, draw = tmp_path_factory.mktemp("poisoned"), random.Random(2)
    texts = ["\n".join(f"{tiny_models.SENTENCES[0]} {i}" for _ in range(3)) for i in range(60)]
    words = ["".join(draw.choices("bgjkmpqvwxyz", k=3)) for _ in range(16)]
    noise = " ".join(words[:8]) + "\n" + " ".join(words[8:])
    texts.insert(31, noise)
    (folder / "text.txt").write_text("\n\n".join(texts))
    options = PrepareOptions(validation_share=0.1)
    path = str(folder / "prepared")
    prepare([str(folder / "text.txt")], tiny_models.vocabulary(), path, options)
    config = config_for(path, save_steps=20, logging_steps=20)
    phase = dataclasses.replace(config.phases[0], steps=60, packing=False, depths=(2,))
    learns = dataclasses.replace(config.optimizer, learning_rate=0.02)
    pretraining.run(
        dataclasses.replace(config, phases=(phase,), optimizer=learns), str(folder / "run")
    )
    corpus, vocabulary = Corpus.open(path), tiny_models.vocabulary()
    parts, sentences = corpus.lengths([0])
    ends = np.cumsum(sentences)[np.cumsum(parts) - 1]
    decoded = [vocabulary.decode(part) for part in np.split(corpus.ids([0]), ends[:-1])]
    [number] = [i for i, text in enumerate(decoded) if "file" not in text]
    return folder / "run", number


def test_a_document_of_noise_is_named_first(poisoned, capsys):
    run, number = poisoned
    past, opened = pretraining.reopen_run(replay.look_up(str(run), 60))
    batches = {step: next(opened.task.batches(0, step, np.arange(8))) for step in range(30, 60)}
    name = f"document {number} of "
    guilty = {}
    for step, batch in batches.items():
        text = opened.text(step, batch, range(8))
        rows = [i for i, row in enumerate(text) if any(name in place for place in row.origin)]
        guilty[step + 1] = rows, batch["mlm_weights"][rows].sum()
    step, (rows, _) = max(guilty.items(), key=lambda item: item[1][1])
    capsys.readouterr()
    assert cli.main(["replay", str(run), "--step", str(step), "--rows", "1"]) == 0
    told = capsys.readouterr().out
    [first] = [line for line in told.splitlines() if line.startswith("row ")]
    row = int(first[4:].partition(":")[0])
    assert row in rows and f"    from {name}" in told
    assert f"rows that stand out from the 8 of the batch: {row}\n" in told


def test_a_skipped_step_names_the_row_that_is_not_finite(data, tmp_path, monkeypatch, capsys):
    made = BatchBuilder.batch

    def broken(self, step, rows):
        batch = made(self, step, rows)
        if step == 6 and self.phase_index == 0:
            batch["mlm_weights"][3, 0] = np.nan
        return batch

    monkeypatch.setattr(BatchBuilder, "batch", broken)
    config = config_for(data)
    short = dataclasses.replace(config.phases[0], steps=8, depths=(2,))
    pretraining.run(dataclasses.replace(config, phases=(short,)), str(tmp_path / "run"))
    out = tmp_path / "step.json"
    arguments = ["replay", str(tmp_path / "run"), "--step", "7", "--rows", "1", "--out", str(out)]
    capsys.readouterr()
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert "step 7 was skipped: loss or gradient is not finite in row 3" in told
    assert "equal to the last digit" in told and "\nrow 3: loss nan" in told
    rows = json.loads(out.read_text())["rows"]
    assert rows[0]["row"] == 3 and rows[0]["loss"] is None and rows[1]["grad_norm"] > 0


def test_rows_that_explain_a_step():
    losses, norms = np.array([3.0, 2.9, 3.1, 3.0, 2.8, 3.2]), np.full(6, 0.5)
    assert not len(RowMeasures(losses, norms).outliers)
    losses[4], norms[2] = 6.0, 4.0
    measures = RowMeasures(losses, norms)
    assert sorted(measures.outliers.tolist()) == [2, 4] == sorted(measures.worst_first[:2])
    assert measures.share.sum() == pytest.approx(1) and measures.share.argmax() == 2
    norms[0] = np.nan
    measures = RowMeasures(losses, norms)
    assert measures.outliers.tolist() == [0] and sorted(measures.worst_first[1:3]) == [2, 4]
    broken = RowMeasures(np.full(3, np.nan), np.full(3, np.nan))
    assert broken.outliers.tolist() == [0, 1, 2]


def test_fewer_devices_take_the_rows_in_more_parts(data):
    then = {**environment.describe(), "devices": 4, "device_kind": "TPU v5", "python": "3.0"}
    config, mesh, differences = replay._on_these_devices(config_for(data), then)
    assert mesh.devices.size == 1
    assert [phase.gradient_accumulation_steps for phase in config.phases] == [4, 4]
    assert differences == ("device_kind: cpu (was TPU v5)", "devices: 1 (was 4)")


def test_other_data_is_refused_or_allowed(run, data, tmp_path, capsys):
    text = tmp_path / "other.txt"
    lines = (Path(data).parent / "text.txt").read_text().replace("file", "name")
    text.write_text(lines)
    other = str(tmp_path / "other")
    prepare([str(text)], tiny_models.vocabulary(), other, PrepareOptions(validation_share=0.2))
    before = content(run)
    command = ["replay", str(run), "--step", "22", "--rows", "1", "--data", other]
    assert cli.main(command) == DataError.exit_code
    told = capsys.readouterr()
    assert (
        "trained with another data" in told.err and "--other-data True" in told.err and not told.out
    )
    assert cli.main([*command, "--other-data", "True"]) == 0
    told = capsys.readouterr().out
    assert "not as in the run, so that numbers may differ: another data" in told
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    past, opened = pretraining.reopen_run(replay.look_up(str(run), 22), (str(moved),))
    assert not replay.check_data(past, opened.facts, allow_other=False).differences_now
    assert content(run) == before


def test_bad_input_is_one_line(run, tmp_path, capsys):
    def refused(code: int, *arguments: object) -> str:
        assert cli.main(["replay", *map(str, arguments)]) == code
        told = capsys.readouterr()
        assert not told.out and "Traceback" not in told.err
        return told.err.splitlines()[-1]

    assert "has done 24 steps: give at most 24" in refused(2, run, "--step", 25)
    assert "--step 0" in refused(2, run, "--step", 0)
    assert "--around needs --out" in refused(2, run, "--step", 1, "--around", 2)
    assert "is not a run folder" in refused(4, tmp_path, "--step", 1)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "metrics.jsonl").unlink()
    assert "no training row in metrics.jsonl" in refused(3, copy, "--step", 1)
    shutil.copy(run / "metrics.jsonl", copy)
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(config.replace("prepared", "gone"))
    shutil.rmtree(copy / "checkpoints")
    (copy / "record.json").unlink()
    assert "record.json is gone" in refused(4, copy, "--step", 1)


@pytest.mark.slow
def test_a_run_that_began_with_the_state_of_another_one(run, data, tmp_path, capsys):
    config = config_for(data)
    longer = dataclasses.replace(config.phases[1], steps=14)
    child = str(tmp_path / "child")
    pretraining.run(
        dataclasses.replace(config, phases=(config.phases[0], longer)), child, parent=f"{run}@20"
    )
    assert cli.main(["replay", child, "--step", "20"]) == 2
    assert f"began at step 20 of {run}@20: replay the step there" in capsys.readouterr().err
    assert_recorded(Path(child), 22)
