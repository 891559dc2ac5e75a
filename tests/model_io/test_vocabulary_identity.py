"""Weights and vocabulary belong together wherever they meet, and a checkpoint to one run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from albert_jax import api, cli, configfile, files
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.sentencepiece import SentencePiece
from albert_jax.errors import AlbertError, CheckpointError, DataError
from albert_jax.export import huggingface as writer
from albert_jax.finetuning import network
from albert_jax.model_io import directories, model, run_record, warm_start
from albert_jax.model_io.huggingface import FINGERPRINT
from albert_jax.train.run import RunFolder, state_of_parent
from tests import tiny_models

CONFIG = tiny_models.RECIPE
OURS = tiny_models.vocabulary()
FACTS = {"task": "pretraining", "vocabulary": OURS.fingerprint, "data_order": ["1"], "data": ["2"]}


def _swapped() -> SentencePiece:
    """Two pieces of equal length have changed their places: as many tokens, other words."""
    data = bytearray(OURS.model)
    one, other = (data.index(b"\x0a\x01" + letter) + 2 for letter in (b"q", b"z"))
    data[one], data[other] = data[other], data[one]
    return SentencePiece(bytes(data))


SWAPPED = _swapped()
OTHERS = {
    "pieces": SWAPPED,
    "case": SentencePiece(OURS.model, lower_case=False),
    "accents": SentencePiece(OURS.model, keep_accents=True),
}


def _run(folder: Path, step: int = 5, **changes) -> Path:
    """A run folder with one checkpoint."""
    config = dataclasses.replace(CONFIG, **changes)
    RunFolder(str(folder)).open(config, FACTS, OURS.files())
    record = {**FACTS, "config": configfile.dumps(config), "report": {}}
    checkpoints = Checkpoints(str(folder), keep=5, best=None)
    state = {"params": api.init(config.model, config.seed)}
    checkpoints.save(step, state, record)
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return _run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run(template, tmp_path) -> Path:
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"


def _put(folder: Path, vocabulary: SentencePiece) -> None:
    """Replaces the files of a vocabulary by those of another one."""
    for name, content in vocabulary.files().items():
        (folder / name).write_bytes(content)


def _refused(call, *arguments, match=r"is not the vocabulary of", error=CheckpointError, **options):
    with pytest.raises(error, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


# ---- the vocabulary ------------------------------------------------------------------------------


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_run_with_another_vocabulary(run, other, capsys):
    assert model.load(str(run)).vocabulary.fingerprint == OURS.fingerprint
    _put(run / "vocabulary", other)
    assert vocabularies.load(str(run / "vocabulary")).size == OURS.size
    _refused(model.load, str(run))
    _refused(network.pretrained_network, str(run), CONFIG.model, ())
    _refused(warm_start.initial_params_from, str(run), CONFIG.model, OURS, seed=0)
    for arguments in (
        ["fill-mask", str(run), "the [MASK]"],
        ["tokenize", str(run), "the"],
        ["export", str(run), "--out", str(run / "x")],
        ["evaluate", str(run)],
        ["embed", str(run), "the", "--out", str(run / "x.npy")],
    ):
        assert cli.main(arguments) == 4
        assert "is not the vocabulary of the run" in capsys.readouterr().err.splitlines()[-1]
    _refused(
        RunFolder(str(run)).open, CONFIG, FACTS, OURS.files(), match="was changed since the run"
    )


def test_a_vocabulary_that_is_gone_is_written_again(run):
    shutil.rmtree(run / "vocabulary")
    _refused(model.load, str(run), match="no vocabulary|holds no", error=AlbertError)
    RunFolder(str(run)).open(CONFIG, FACTS, OURS.files())
    assert run_record.load_vocabulary(str(run)).fingerprint == OURS.fingerprint


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("to", ["native", "huggingface"])
def test_an_export_with_another_vocabulary(tmp_path, to, other, capsys):
    out = tmp_path / "out"
    api.save(tiny_models.model(), str(out), to=to)
    assert directories.read(out).fingerprint == OURS.fingerprint
    assert cli.main(["import", str(out), "--out", str(tmp_path / "in")]) == 0
    assert "vocabulary verified" in capsys.readouterr().out
    vocabularies.save(other, str(tmp_path / "other"))
    _refused(directories.read, out, vocabulary=str(tmp_path / "other"))
    if to == "native":
        _put(out / "vocabulary", other)
    else:
        (out / "spiece.model").write_bytes(other.model)
        path = out / "tokenizer_config.json"
        case = {"do_lower_case": other.rules.lower_case, "keep_accents": other.rules.keep_accents}
        path.write_text(json.dumps(json.loads(path.read_text()) | case))
    _refused(model.load, str(out))
    assert cli.main(["import", str(out), "--out", str(tmp_path / "again")]) == 4
    assert not (tmp_path / "again").exists()
    _refused(warm_start.initial_params_from, str(out), CONFIG.model, OURS, seed=0)


def test_weights_without_their_vocabulary_still_know_it(tmp_path):
    """Rows of the embeddings would be taken for the words of another vocabulary of this size."""
    writer.export(tiny_models.model(), str(tmp_path / "hf"))
    (tmp_path / "hf" / "spiece.model").unlink()
    source = str(tmp_path / "hf")
    assert directories.read(source).vocabulary is None
    warm_start.initial_params_from(source, CONFIG.model, OURS, seed=0)
    _refused(warm_start.initial_params_from, source, CONFIG.model, SWAPPED, seed=0)
    # It stays known through an import.
    assert cli.main(["import", source, "--out", str(tmp_path / "in")]) == 0
    _refused(warm_start.initial_params_from, str(tmp_path / "in"), CONFIG.model, SWAPPED, seed=0)


def test_a_folder_of_others_has_nothing_to_compare(tmp_path, capsys):
    writer.export(tiny_models.model(), str(tmp_path / "hf"))
    path = tmp_path / "hf" / "config.json"
    entries = json.loads(path.read_text())
    del entries[FINGERPRINT]
    path.write_text(json.dumps(entries))
    (tmp_path / "hf" / "spiece.model").write_bytes(SWAPPED.model)
    assert model.load(str(tmp_path / "hf")).vocabulary.fingerprint == SWAPPED.fingerprint
    assert cli.main(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "in")]) == 0
    assert "vocabulary unverified" in capsys.readouterr().out
    path.write_text(json.dumps(entries | {FINGERPRINT: 7}))
    _refused(directories.read, tmp_path / "hf", match="is no text")


def test_a_child_run_cannot_have_another_vocabulary(run):
    shapes = {"params": api.init(CONFIG.model)}
    assert state_of_parent(f"{run}@5", OURS)(shapes)  # type: ignore[arg-type]
    _refused(state_of_parent(f"{run}@5", SWAPPED), shapes)


@pytest.mark.parametrize("allowed", [(), ("data",), ("data", "optimizer")], ids=str)
def test_a_run_never_changes_its_vocabulary(run, allowed):
    """Not with other documents either; and a refusal leaves all files as they were."""
    before = {name: (run / name).read_bytes() for name in ("record.json", "config.toml")}
    facts = FACTS | {"vocabulary": SWAPPED.fingerprint, "data": ["3"], "data_order": ["4"]}
    opened = RunFolder(str(run)).open
    match = "another vocabulary .*--init, which carries the words over"
    arguments = (CONFIG, facts, SWAPPED.files())
    _refused(opened, *arguments, allow_change=allowed, match=match, error=DataError)
    assert before == {name: (run / name).read_bytes() for name in before}
    assert run_record.load_vocabulary(str(run)).fingerprint == OURS.fingerprint
    # Other documents of the same words may follow.
    facts["vocabulary"] = OURS.fingerprint
    if allowed:
        RunFolder(str(run)).open(CONFIG, facts, OURS.files(), allow_change=allowed)
        model.load(str(run))


# ---- the checkpoints -----------------------------------------------------------------------------


def _copy_step(source: Path, target: Path, step: int) -> None:
    shutil.copytree(source / "checkpoints" / str(step), target / "checkpoints" / str(step))
    shutil.copy(source / "complete" / str(step), target / "complete" / str(step))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"seed": 1}, "seed"),
        ({"optimizer": dataclasses.replace(CONFIG.optimizer, learning_rate=0.5)}, "learning_rate"),
        ({"model": dataclasses.replace(CONFIG.model, hidden_dropout_prob=0.5)}, "dropout"),
    ],
    ids=["seed", "optimizer", "model"],
)
def test_a_checkpoint_of_another_run(run, tmp_path, changes, match):
    other = _run(tmp_path / "other", step=9, **changes)
    _copy_step(other, run, 9)
    _refused(model.load, str(run), match=rf"checkpoints/9 is .*another run: .*{match}")
    assert model.load(str(run), step=5).step == 5
    shapes = {"params": api.init(CONFIG.model)}
    _refused(state_of_parent(str(run), OURS), shapes, match="of another run")


@pytest.mark.parametrize("name", ["data_order", "data", "vocabulary", "task"])
def test_a_checkpoint_with_other_facts(run, name):
    record = json.loads((run / "record.json").read_text())
    saved = {**record, "config": configfile.dumps(CONFIG), "report": {}}
    run_record.check_checkpoint(str(run), 5, saved)
    words = name.replace("_", " ")
    saved[name] = "other"
    _refused(run_record.check_checkpoint, str(run), 5, saved, match=f"its {words} is other, not")
    if name.startswith("data"):
        (run / "record.json").write_text(json.dumps(record | {run_record.ALLOWED: ["data"]}))
        run_record.check_checkpoint(str(run), 5, saved)


@pytest.mark.parametrize("text", ["", "[", "seed = 'x'", 7])
def test_a_checkpoint_whose_config_is_none(run, text):
    saved = {**FACTS, "config": text}
    _refused(run_record.check_checkpoint, str(run), 5, saved, match="another run: ")


def test_what_was_allowed_once_stays_allowed(run):
    """A run may be killed between an allowed change and its next checkpoint."""
    rate = dataclasses.replace(CONFIG.optimizer, learning_rate=0.5)
    changed = dataclasses.replace(CONFIG, optimizer=rate)
    opened = RunFolder(str(run)).open
    opened(changed, FACTS, OURS.files(), allow_change=("optimizer.learning_rate",))
    opened(changed, FACTS, OURS.files())
    assert model.load(str(run)).step == 5
    record = json.loads((run / "record.json").read_text())
    assert record[run_record.ALLOWED] == ["optimizer.learning_rate"]
    # A config that was edited by hand was never allowed.
    edited = (run / "config.toml").read_text().replace("seed = 0", "seed = 3")
    (run / "config.toml").write_text(edited)
    _refused(model.load, str(run), match="seed = 3")


# ---- record.json ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"7", b'"text"', b'{"vocabulary":', b"\xff{}", b"[" * 100_000,
     b" " * (1 << 20) + b"{}", b'{"vocabulary": 7, "data_order": ["a"]}',
     b'{"vocabulary": "", "data_order": ["a"]}', b'{"vocabulary": "a", "data_order": []}',
     b'{"vocabulary": "a", "data_order": [7]}', b'{"vocabulary": "a", "data_order": {}}'],
    ids=lambda content: repr(content[:40]),
)  # fmt: skip
def test_a_record_that_is_none(run, content, capsys):
    (run / "record.json").write_bytes(content)
    opened = RunFolder(str(run)).open
    _refused(opened, CONFIG, FACTS, OURS.files(), match=r"record\.json is damaged")
    _refused(model.load, str(run), match=r"record\.json is damaged")
    assert cli.main(["evaluate", str(run)]) == 4
    assert "record.json is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert (run / "record.json").read_bytes() == content


def test_a_record_that_is_gone_or_a_pipe(run):
    opened = RunFolder(str(run)).open
    (run / "record.json").unlink()
    _refused(opened, CONFIG, FACTS, OURS.files(), match=r"record\.json is gone")
    os.mkfifo(run / "record.json")
    _refused(opened, CONFIG, FACTS, OURS.files(), match="a pipe or device", error=AlbertError)
    _refused(model.load, str(run), match="a pipe or device", error=AlbertError)


def test_other_entries_of_other_types_are_changes_at_most(run):
    record = json.loads((run / "record.json").read_text())
    strange = {"environment": 7, "init": [1], run_record.ALLOWED: {"a": 1}}
    (run / "record.json").write_text(json.dumps(record | strange))
    facts = {**FACTS, "environment": {"python": "3"}, "init": None}
    assert RunFolder(str(run)).open(CONFIG, facts, OURS.files())
    assert run_record.allowed(run_record.read(str(run))) == ()
    files.write(str(run / "evaluation.json"), b"[7")
    writer.export(model.load(str(run)), str(run / "x"))
    assert np.isfinite(directories.read(run / "x").params["pooler"]["bias"]).all()


def test_a_change_of_one_package_is_one_line(run):
    packages = {"jax": "1.0", "numpy": "2.0", "flax": "3.0"}
    opened = RunFolder(str(run)).open
    opened(CONFIG, FACTS | {"environment": {"packages": packages}}, OURS.files())
    changed = {"environment": {"packages": packages | {"jax": "1.1"}}}
    lines = opened(CONFIG, FACTS | changed, OURS.files())
    assert lines == ["environment.packages.jax = 1.1 (was 1.0)"]


def test_data_may_lie_elsewhere_now(run):
    """Its place is no part of what a run is; the digests of its content are."""
    there = dataclasses.replace(CONFIG.data, prepared=("/moved/here",))
    moved = configfile.dumps(dataclasses.replace(CONFIG, data=there))
    (run / "config.toml").write_text(moved)
    assert model.load(str(run)).step == 5
