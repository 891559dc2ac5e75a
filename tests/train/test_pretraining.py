"""Whole pretraining runs of a micro model: repeatable, resumable, refused in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax import cli, configfile
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PhaseConfig,
    RunConfig,
)
from albert_jax.data.batches import pipeline
from albert_jax.data.corpus import shard_writer
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.errors import (
    AlbertError,
    CheckpointError,
    ConfigError,
    DataError,
    NumericsError,
    Stopped,
)
from albert_jax.evaluation import minimal_pairs
from albert_jax.inference import scoring
from albert_jax.model.albert import abstract_params
from albert_jax.model_io import model as loading
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console
from albert_jax.observe.metrics import read_rows
from albert_jax.parallel.mesh import make_mesh
from albert_jax.train import loop, pretraining
from albert_jax.train.report import Report
from albert_jax.train.run import state_of_parent
from albert_jax.train.state import abstract_state
from tests import tiny_models
from tests.stopping import stop_after


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """A prepared folder."""
    return tiny_models.prepared(tmp_path_factory.mktemp("data"))


def micro(data: str, **changes) -> Config:
    """Two phases of six steps each, with dropout."""
    model = dataclasses.replace(
        tiny_models.MODEL, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1
    )
    phase = PhaseConfig(steps=6, sequence_length=16, batch_size=8)
    longer = dataclasses.replace(
        phase,
        sequence_length=32,
        batch_size=4,
        objective=ObjectiveConfig(mask_rate=0.2, sentence_order="none"),
    )
    config = Config(
        model=model,
        data=DataConfig(prepared=(data,)),
        phases=(phase, longer),
        optimizer=OptimizerConfig(learning_rate=0.01, warmup_steps=2),
        compute=ComputeConfig(dtype="float32", unroll=True),
        run=RunConfig(
            logging_steps=2,
            eval_steps=4,
            max_eval_samples=8,
            save_steps=4,
            save_total_limit=2,
            watchdog_seconds=0,
        ),  # fmt: skip
    )
    return dataclasses.replace(config, **changes)


def final_state(run: Path, config: Config) -> dict[str, np.ndarray]:
    """Every leaf of the newest checkpoint."""
    shapes = abstract_state(config, abstract_params(config.model), make_mesh(config.parallel))
    restored = Checkpoints(str(run), read_only=True).restore(shapes)
    assert restored is not None
    leaves = jax.tree_util.tree_leaves_with_path(restored.state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(one: Path, other: Path, config: Config) -> None:
    """Equal rows of the record but for times, and equal bits in the last checkpoint."""
    times = {"seconds", "goodput", "tokens_per_second", "eta", "time", "cost"}
    rows = [
        [{key: row[key] for key in row if key not in times} for row in read_rows(str(run))]
        for run in (one, other)
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0] if row["kind"] == "train"][-1] == config.steps
    states = [final_state(run, config) for run in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, leaf in states[0].items():
        assert leaf.tobytes() == states[1][name].tobytes(), name


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretraining.run(micro(data), str(run))
    return run


def test_the_same_seed_gives_the_same_run_and_its_own_config_repeats_it(data, whole, tmp_path):
    pretraining.run(configfile.load(str(whole)), str(tmp_path / "again"))
    assert_same(whole, tmp_path / "again", micro(data))
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    record = json.loads((whole / "record.json").read_text())
    assert record["config"] == configfile.digest(micro(data))
    assert record["environment"]["packages"]["jax"] == jax.__version__


def test_the_record_has_the_objectives_of_each_phase(whole):
    rows = [row for row in read_rows(str(whole)) if row["kind"] == "train"]
    assert [("sop_loss" in row, row["phase"]) for row in rows] == [(True, 0)] * 3 + [(False, 1)] * 3


def test_a_trace_of_the_steps_that_were_asked_for(data, whole, tmp_path):
    config, run = micro(data), tmp_path / "run"
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, profile_steps=(3, 4)))
    pretraining.run(config, str(run))
    assert [path for path in (run / "profile").rglob("*.xplane.pb") if path.stat().st_size]
    assert_same(whole, run, config)
    for steps in ((4, 3), (0, 1), (2,)):
        wrong = dataclasses.replace(
            config, run=dataclasses.replace(config.run, profile_steps=steps)
        )
        with pytest.raises(
            ConfigError, match="profile_steps is .*: give the first and the last step"
        ):
            wrong.validate()


def test_another_seed_gives_another_run(data, whole, tmp_path):
    config = micro(data, seed=1)
    pretraining.run(config, str(tmp_path / "run"))
    mine, theirs = final_state(tmp_path / "run", config), final_state(whole, config)
    assert any(mine[name].tobytes() != theirs[name].tobytes() for name in mine)


@pytest.mark.parametrize("step", [3, 4, 6, 9])  # Step 4 is evaluated.
def test_a_stopped_run_goes_on_as_if_it_had_not_been(data, whole, tmp_path, monkeypatch, step):
    config, run = micro(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(step, patched.setattr)
        with pytest.raises(Stopped, match=f"saved after step {step} of 12"):
            pretraining.run(config, str(run))
    pretraining.run(config, str(run))
    assert_same(whole, run, config)


def test_an_evaluation_is_left_for_a_signal_and_done_when_the_run_goes_on(
    data, whole, tmp_path, monkeypatch
):
    config, run = micro(data), tmp_path / "run"
    for step, questions in ((4, 2), (0, 1)):  # Then in the evaluation that the run begins with.
        with monkeypatch.context() as patched:
            stop_after(step, patched.setattr, questions=questions)
            with pytest.raises(Stopped, match="saved after step 4 of 12"):
                pretraining.run(config, str(run))
        assert [row["kind"] for row in read_rows(str(run))].count("evaluation") == 0
    pretraining.run(config, str(run))
    assert_same(whole, run, config)


def test_a_signal_in_the_last_step_leaves_the_evaluation_for_the_next_start(
    data, whole, tmp_path, monkeypatch, capsys
):
    config, run = micro(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(config.steps, patched.setattr)
        with pytest.raises(Stopped, match="saved after step 12 of 12"):
            pretraining.run(config, str(run))
    pretraining.run(config, str(run))
    assert_same(whole, run, config)
    found = [Checkpoints(str(path), read_only=True).metrics(12) for path in (run, whole)]
    assert found[0] == {**found[1], loop.EVALUATED: 1.0}
    pretraining.run(config, str(run))
    assert "run: done (12 of 12 steps)" in capsys.readouterr().out


def test_an_evaluation_that_was_killed_after_a_stop_has_one_row(data, whole, tmp_path, monkeypatch):
    config, run = micro(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(4, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(config, str(run))
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(Checkpoints, "add_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            pretraining.run(config, str(run))
    pretraining.run(config, str(run))
    assert_same(whole, run, config)


def test_a_run_finds_its_data_from_another_folder(data, tmp_path, monkeypatch, capsys):
    run = str(tmp_path / "run")
    parent, name = str(Path(data).parent), Path(data).name
    monkeypatch.chdir(parent)
    with monkeypatch.context() as patched:
        stop_after(8, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(micro(name), run)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", run]) == 0
    assert cli.main(["data", "show", "--config", run]) == 0
    pretraining.run(configfile.load(run), run)
    assert "done, 4 steps now, 12 in all" in capsys.readouterr().out


def test_another_text_of_the_same_lengths_is_refused(data, tmp_path, monkeypatch):
    run, copy = str(tmp_path / "run"), tmp_path / "copy"
    shutil.copytree(data, copy)
    with monkeypatch.context() as patched:
        stop_after(8, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(micro(str(copy)), run)
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = manifest["splits"]["train"][0]
    entry["files"][f"{entry['name']}.array_record"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="was started with another data "):
        pretraining.run(micro(str(copy)), run)


def flip_a_bit(prepared: Path, split: str, window: int) -> None:
    """Damages a record of the only shard of a split."""
    shard = Corpus.open(prepared, split).shards[0]
    path = prepared / f"{shard.entry['name']}.array_record"
    content = bytearray(path.read_bytes())
    content[content.find(shard.ids(window).tobytes()) + 5] ^= 8
    path.write_bytes(content)


@pytest.mark.thorough
def test_documents_of_damaged_records_are_left_out(tmp_path, monkeypatch, capsys):
    """A run that meets damage ends; started again with skip it goes on, and alike whenever it is
    interrupted."""
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 300)
    data = Path(tiny_models.prepared(tmp_path))
    run, other = tmp_path / "run", tmp_path / "other"
    with monkeypatch.context() as patched:
        stop_after(8, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(micro(str(data)), str(run))
    flip_a_bit(data, "train", 12)
    with refused(
        DataError, "shard .* is damaged: record 12", "step 9 reads its text in row 2", "skip"
    ):
        pretraining.run(micro(str(data)), str(run))
    flip_a_bit(data, "validation", 0)
    skipping = DataConfig(prepared=(str(data),), on_damage="skip")
    config = dataclasses.replace(micro(str(data)), data=skipping)
    pretraining.run(config, str(run))
    corpora = [Corpus.open(data, split) for split in ("train", "validation")]
    count = corpora[0].documents_in([12]) + corpora[1].documents_in([0])
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].endswith(f"{count} documents of damaged records were left out")
    rows = [row for row in read_rows(str(run)) if row["kind"] == "train"]
    assert [row.get("left_out_documents") for row in rows] == [None] * 4 + [count] * 2

    for step in (5, 10, None):
        with monkeypatch.context() as patched:
            if step:
                stop_after(step, patched.setattr)
            with pytest.raises(Stopped) if step else contextlib.nullcontext():
                pretraining.run(config, str(other))
    pretraining.run(config, str(tmp_path / "whole"))
    assert_same(tmp_path / "whole", other, config)
    assert cli.main(["evaluate", str(other)]) == 0
    capsys.readouterr()
    assert cli.main(["data", "show", "--config", str(other), "--step", "9", "--row", "2"]) == 0
    assert capsys.readouterr().out.startswith("row 2: 0 of 32 tokens")


def test_damaged_held_out_text_ends_a_run_before_its_first_step(tmp_path):
    data, run = Path(tiny_models.prepared(tmp_path)), tmp_path / "run"
    flip_a_bit(data, "validation", 0)
    with refused(DataError, "is damaged: record 0", "skip"):
        pretraining.run(micro(str(data)), str(run))
    assert not (run / "metrics.jsonl").exists() and not (run / "checkpoints").exists()


@pytest.mark.thorough
def test_a_checkpoint_of_another_run_is_not_taken(data, whole, tmp_path, monkeypatch):
    """A run of another seed, whose newest step is copied in beside our own."""
    run, other, config = tmp_path / "run", tmp_path / "other", micro(data)
    for out, seed, step in ((run, 0, 3), (other, 1, 5)):
        with monkeypatch.context() as patched:
            stop_after(step, patched.setattr)
            with pytest.raises(Stopped):
                pretraining.run(micro(data, seed=seed), str(out))
    shutil.copytree(other / "checkpoints" / "5", run / "checkpoints" / "5")
    before = sorted(run.rglob("*"))
    with refused(CheckpointError, "checkpoints/5 is a checkpoint of another run: seed = 0"):
        pretraining.run(config, str(run))
    # Only the completion marker is new: without it, too, the step was whole.
    assert [path for path in run.rglob("*") if path not in before] == [run / "complete" / "5"]
    shutil.rmtree(run / "checkpoints" / "5")
    (run / "complete" / "5").unlink()
    # A damaged line of the record does not keep the run from going on.
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step":3,"loss":\xff}\n')
    pretraining.run(config, str(run))
    assert_same(whole, run, config)


def test_what_a_checkpoint_holds_of_the_report_does_not_change_afterwards(data):
    config = micro(data)
    task = types.SimpleNamespace(count=lambda batch: {"tokens": 3.0}, reference_loss=None)
    report = Report(config, task, Clock(), Console(quiet=True), None)  # type: ignore[arg-type]
    values = {"loss": 1.0, "learning_rate": 0.1, "grad_norm": 1.0, "skipped": 0,
              "skipped_in_a_row": 0}  # fmt: skip
    rows = {"input_ids": np.zeros((8, 16), np.int32)}
    report.step(1, values, rows)
    report.flush()
    state = report.state()
    sums = {"all_steps": 1.0, "steps": 1.0, "loss": 1.0, "tokens": 3.0, "timed_tokens": 3.0}
    assert state["sums"] == sums
    for step in (2, 3):  # The row of step 2 ends the window.
        report.step(step, values, rows)
        report.flush()
        assert state["sums"] == sums


def test_a_finished_run_says_so_and_writes_nothing(data, whole, capsys):
    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    before = content()
    assert any("tfevents" in name for name in before)
    pretraining.run(micro(data), str(whole))
    assert "done (12 of 12 steps)" in capsys.readouterr().out
    assert content() == before


def test_the_start_of_a_run_is_one_line(data, tmp_path, monkeypatch, capsys):
    stop_after(1, monkeypatch.setattr)
    with pytest.raises(Stopped):
        pretraining.run(micro(data), str(tmp_path / "run"))
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(tiny_models.MODEL)))
    line = capsys.readouterr().out.splitlines()[0]
    corpus = Corpus.open(data)
    assert line == (
        f"{tmp_path}/run: {count:,} parameters, attention xla, 1 x cpu; {corpus.num_tokens:,} tokens "
        f"in {corpus.num_documents} documents, 8 held-out rows; 2 phases, 12 steps"
    )


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(
    data, whole, tmp_path, monkeypatch
):
    config, run = micro(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(10, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(config, str(run))
    newest = max(run.glob("checkpoints/*"), key=lambda path: int(path.name))
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    pretraining.run(config, str(run))
    assert_same(whole, run, config)
    assert (run / "damaged" / newest.name).exists()


def test_no_complete_checkpoint_is_never_a_start_from_zero(data, tmp_path, monkeypatch):
    config, run = micro(data), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_after(5, patched.setattr)
        with pytest.raises(Stopped):
            pretraining.run(config, str(run))
    for step in run.glob("checkpoints/*"):
        for file in step.rglob("*"):
            if file.is_file() and file.stat().st_size > 100:
                file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        pretraining.run(config, str(run))


def test_three_bad_steps_end_the_run_and_leave_no_bad_checkpoint(data, tmp_path, monkeypatch):
    config, run = micro(data), tmp_path / "run"
    made = pipeline.batches

    def poisoned(*arguments):
        for number, batch in enumerate(made(*arguments)):
            if number >= 2:
                batch["mlm_weights"][:] = np.nan
            yield batch

    monkeypatch.setattr(pipeline, "batches", poisoned)
    with pytest.raises(NumericsError, match="3 steps in a row up to step 5 .*--step 5"):
        pretraining.run(config, str(run))
    assert all(np.isfinite(leaf).all() for leaf in final_state(run, config).values())
    rows = [row for row in read_rows(str(run)) if row["kind"] == "train"]
    assert [(row["step"], row["skipped_steps"]) for row in rows] == [(2, 0), (4, 2)]
    assert rows[0]["grad_norm"] > 0 and rows[1]["grad_norm"] is None


def test_a_child_run_begins_with_the_whole_state_of_its_parent(data, whole, tmp_path):
    config = micro(data)
    last = dataclasses.replace(config.phases[1], steps=8, schedule="decay")
    child = dataclasses.replace(config, phases=(config.phases[0], last))
    pretraining.run(child, str(tmp_path / "child"), parent=f"{whole}@12")
    rows = read_rows(str(tmp_path / "child"))
    assert [row["step"] for row in rows if row["kind"] == "train"] == [14]
    assert json.loads((tmp_path / "child" / "record.json").read_text())["parent"]
    with pytest.raises(ConfigError, match="RUN@STEP"):
        state_of_parent(f"{whole}@last", tiny_models.vocabulary())


def test_start_weights_of_a_directory(data, tmp_path):
    source = tiny_models.directory(tmp_path)
    config = micro(data, model=tiny_models.MODEL)
    no_steps = dataclasses.replace(
        config, optimizer=OptimizerConfig(learning_rate=1e-9, warmup_steps=0)
    )
    wanted = tiny_models.model().params["embeddings"]["word_embeddings"]["embedding"]
    run = tmp_path / "run"
    # The second run continues the first one, which has lost its checkpoints: it begins as that did.
    for init in (source, None):
        pretraining.run(no_steps, str(run), init=init)
        state = final_state(run, config)
        [mine] = [v for k, v in state.items() if "params" in k and "word_embeddings" in k]
        np.testing.assert_allclose(mine, wanted, atol=1e-6)
        assert json.loads((run / "record.json").read_text())["init"] == source
        for name in ("checkpoints", "complete"):
            shutil.rmtree(run / name)


def refused(kind: type[AlbertError], *words: str):
    """Expects one line with all these words."""
    pattern = "".join(f"(?=.*{word})" for word in words)
    return pytest.raises(kind, match=pattern)


def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path):
    run = str(tmp_path / "run")
    config = micro(data)

    def changed(section: str, **values) -> Config:
        part = dataclasses.replace(getattr(config, section), **values)
        return dataclasses.replace(config, **{section: part})

    def phase(**values) -> Config:
        return dataclasses.replace(
            config, phases=(dataclasses.replace(config.phases[0], **values),)
        )

    with refused(ConfigError, "model.vocab_size is 65", "64"):
        pretraining.run(changed("model", vocab_size=65), run)
    with refused(ConfigError, "hidden_size 17", "num_attention_heads 2"):
        pretraining.run(changed("model", hidden_size=17), run)
    with refused(ConfigError, "sequence_length is 49", "the model has 48 positions"):
        pretraining.run(phase(sequence_length=49), run)
    with refused(ConfigError, "phases.0.batch_size 9", "gradient_accumulation_steps 2"):
        pretraining.run(phase(batch_size=9, gradient_accumulation_steps=2), run)
    with refused(ConfigError, "slice 1 x data 1 x fsdp 2", "devices"):
        pretraining.run(changed("parallel", fsdp=2, data=1), run)
    with refused(DataError, "not a prepared folder", "data prepare"):
        pretraining.run(changed("data", prepared=(str(tmp_path),)), run)
    assert not Path(run).exists()


def test_a_run_that_was_killed_while_its_first_file_was_written_starts(data, tmp_path):
    (tmp_path / "record.json.0a1b2c3d.tmp").write_text("{")
    pretraining.run(micro(data), str(tmp_path))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_of_something_else_is_refused(data, whole, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with refused(CheckpointError, "not a run folder", "notes.txt", "another --out"):
        pretraining.run(micro(data), str(tmp_path))
    with refused(ConfigError, "learning_rate", "--allow-change"):
        other = micro(data, optimizer=OptimizerConfig(learning_rate=0.02, warmup_steps=2))
        pretraining.run(other, str(whole))
    with refused(CheckpointError, "another model", "hidden_dropout_prob"):
        pretraining.run(micro(data, model=tiny_models.MODEL), str(whole))


@pytest.mark.thorough
def test_minimal_pairs_are_scored_beside_the_held_out_rows(data, tmp_path):
    pairs = [(a, " ".join(reversed(a.split()))) for a in tiny_models.SENTENCES]
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    config = micro(data)
    config = dataclasses.replace(
        config, run=dataclasses.replace(config.run, minimal_pairs=str(tmp_path / "pairs.jsonl"))
    )
    pretraining.run(config, str(tmp_path / "run"))
    accuracies = [row["minimal_pairs_accuracy"] for row in read_rows(str(tmp_path / "run"))
            if row["kind"] == "evaluation"]  # fmt: skip
    assert len(accuracies) == 3 and all(0 <= value <= 1 for value in accuracies)
    read = minimal_pairs.read(config.run.minimal_pairs)
    model = loading.load(str(tmp_path / "run"))
    scores, _ = scoring.score_sentences(model, *minimal_pairs.sentences(read))
    assert accuracies[-1] == np.mean(scores[::2] > scores[1::2])
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"sentence_good": "a " * 60, "sentence_bad": "b"})
    )
    with pytest.raises(DataError, match="shorten it or drop the line"):
        pretraining.run(config, str(tmp_path / "other"))
    assert not (tmp_path / "other" / "config.toml").exists()


def test_dna_is_pretrained_evaluated_and_exported(tmp_path, monkeypatch, capsys):
    """As docs/own-text.md says; its vocabulary is a range of numbers, which encodes no text."""
    page = (Path(__file__).parents[2] / "docs" / "own-text.md").read_text()
    [program] = [p.split("```")[0] for p in page.split("```python\n") if "genome.fa" in p]
    bases = np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, (60, 80))]
    lines = [f">seq{n}\n{''.join(row[:50])}\n{''.join(row[50:])}\n" for n, row in enumerate(bases)]
    monkeypatch.chdir(tmp_path)
    Path("genome.fa").write_text("".join(lines))
    arguments = ["tokenizer", "train", "--text", "genome.fa", "--vocab-size", "40", "--out", "x"]
    assert cli.main(arguments) == 3
    assert "make token ids (docs/own-text.md)" in capsys.readouterr().err
    exec(program, {})
    assert np.load("rows.bounds.npy").tolist() == list(range(0, 4801, 80))
    special = ["--special-ids", "0", "1", "2", "3"]
    arguments = ["data", "prepare", "--ids", "rows.npy", *special, "--vocab-size"]
    assert cli.main([*arguments, "9", "--out", "data"]) == 0
    config = micro("data", model=dataclasses.replace(tiny_models.MODEL, vocab_size=9))
    pretraining.run(config, "run")
    assert [row["step"] for row in read_rows("run") if row["kind"] == "evaluation"][-1] == 12
    assert cli.main(["evaluate", "run"]) == 0
    assert cli.main(["export", "run", "--out", "export"]) == 0
    assert "torch.tensor([[1, 4, 2]])" in Path("export", "README.md").read_text()
    capsys.readouterr()
    assert cli.main([*arguments, "7", "--out", "other"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert "rows.npy, row" in last and "id 7 at position" in last


def test_a_warmup_longer_than_the_run_is_told(data, tmp_path, caplog):
    optimizer = OptimizerConfig(learning_rate=0.01, warmup_steps=12)
    pretraining.run(micro(data, optimizer=optimizer), str(tmp_path / "run"))
    assert "the warm-up takes 12 steps and the run has 12" in caplog.text
