"""verify: whole folders pass, each kind of damage is named, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from albert_jax import api, cli, configfile
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.model_io import safetensors_files
from albert_jax.model_io.safetensors_files import Tensors
from albert_jax.train.run import RunFolder
from tests import tiny_models
from tests.model_io.structures import finetuned, tiny
from tests.model_io.test_vocabulary_identity import CONFIG, FACTS, OURS, SWAPPED


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A run of two checkpoints, prepared text, and exports of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    run = str(folder / "run")
    RunFolder(run).open(CONFIG, FACTS, OURS.files())
    checkpoints = Checkpoints(run, keep=5, best=None)
    record = {**FACTS, "config": configfile.dumps(CONFIG), "report": {}}
    for step in (5, 10):
        params = api.init(CONFIG.model, step)
        checkpoints.save(step, {"step": np.int32(step), "params": params, "empty": {}}, record)
    checkpoints.close()
    (folder / "run" / "metrics.jsonl").write_text('{"step":5}\n{"step":10,"lo')
    tiny_models.prepared(folder)
    api.save(tiny_models.model(), str(folder / "native"))
    api.save(tiny_models.model(), str(folder / "huggingface"), to="huggingface")
    api.save(finetuned("classification", tiny()), str(folder / "tuned"), to="huggingface")
    return folder


@pytest.fixture
def copy(folders, tmp_path) -> Path:
    shutil.copytree(folders, tmp_path / "copy")
    return tmp_path / "copy"


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = ("run", "prepared", "native", "huggingface", "tuned")


def test_whole_folders_pass_and_are_only_read(copy, capsys):
    before = _snapshot(copy)
    names = sorted(map(str, copy.rglob("*")))
    assert cli.main(["verify", *(str(copy / name) for name in WHOLE)]) == 0
    out, err = capsys.readouterr()
    assert "DAMAGED" not in out and not err
    assert "checkpoint 10" in out and "GB/s" in out and "metrics.jsonl" in out
    assert out.count("matches its digest") == 3 and "validation: vocabulary" in out
    assert out.count(OURS.fingerprint[:12]) == 5
    assert _snapshot(copy) == before and sorted(map(str, copy.rglob("*"))) == names


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def _of_other_run(copy: Path) -> None:
    """A step that only its record tells from ours; it is not the newest."""
    record = {**FACTS, "config": configfile.dumps(CONFIG).replace("seed = 0", "seed = 1")}
    checkpoints = Checkpoints(str(copy / "other"), keep=1, best=None)
    checkpoints.save(7, {"params": api.init(CONFIG.model)}, record)
    checkpoints.close()
    for folder in ("checkpoints", "complete"):
        shutil.move(copy / "other" / folder / "7", copy / "run" / folder / "7")


def _nan(copy: Path, name: str, tensor: str) -> None:
    """A number that is none, without a digest that would tell."""
    path = next((copy / name).glob("*.safetensors"))
    stored, metadata = dict(Tensors(path)), Tensors(path).metadata
    stored[tensor] = np.full_like(stored[tensor], np.nan).astype(ml_dtypes.bfloat16)
    safetensors_files.write(path, stored, metadata=metadata)
    (copy / name / "conversion.json").unlink()


def _text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _swap_vocabulary(folder: Path) -> None:
    for name, content in SWAPPED.files().items():
        (folder / name).write_bytes(content)


DAMAGE = {
    "old checkpoint": ("run", lambda c: _flip(_largest(c / "run" / "checkpoints" / "5")),
                       "checkpoint 5", "does not match its digest"),
    "checkpoint of another run": ("run", _of_other_run, "checkpoint 7", "of another run: seed = 0"),
    "copied checkpoint": ("run", lambda c: shutil.copytree(c / "run/checkpoints/5", c / "run/checkpoints/6"),
                          "checkpoint 6", "that of step 5"),
    "missing file": ("run", lambda c: _largest(c / "run/checkpoints/10").unlink(), "checkpoint 10",
                     "is gone"),
    "marker": ("run", lambda c: (c / "run/complete/10").write_text("0" * 64), "checkpoint 10",
               "completion marker"),
    "file among steps": ("run", lambda c: (c / "run/checkpoints/11").write_text(""), "checkpoint 11",
                         "is not a folder"),
    "metrics": ("run", lambda c: (c / "run/metrics.jsonl").write_bytes(b'{"step":5}\n\xff\n'),
                "metrics.jsonl", "1 of 2 lines are not rows, the first is line 2"),
    "record": ("run", lambda c: (c / "run/record.json").write_text("[]"), "record.json", "damaged"),
    "no record": ("run", lambda c: (c / "run/record.json").unlink(), "record.json", "is gone"),
    "run vocabulary": ("run", lambda c: _swap_vocabulary(c / "run/vocabulary"), "vocabulary",
                       "is not the vocabulary"),
    "config": ("run", lambda c: _text(c / "run/config.toml", "seed = 0", "seed = "), "config.toml",
               "not TOML"),
    "held-out record": ("prepared", lambda c: _flip(next((c / "prepared").glob("*valid*.array_record"))),
                        ".array_record", "checksum"),
    "training record": ("prepared", lambda c: _flip(next((c / "prepared").glob("*train*.array_record"))),
                        "record 0", "cannot be read"),
    "index": ("prepared", lambda c: _flip(next((c / "prepared").glob("*train*.sentences.npy"))),
              "train", "checksum"),
    "unigram": ("prepared", lambda c: _flip(c / "prepared/unigram.npy"), "unigram.npy", "checksum"),
    "data vocabulary": ("prepared", lambda c: _swap_vocabulary(c / "prepared/vocabulary"),
                        "train: vocabulary", "was prepared with vocabulary"),
    "manifest": ("prepared", lambda c: (c / "prepared/manifest.json").write_text("[]"),
                 "manifest.json", "format"),
    "native bits": ("native", lambda c: _flip(c / "native/params.safetensors"), "params.safetensors",
                    "does not match its digest"),
    "native numbers": ("native", lambda c: _nan(c, "native", "pooler/bias"), "parameters", "NaN"),
    "native vocabulary": ("native", lambda c: _swap_vocabulary(c / "native/vocabulary"),
                          "parameters and vocabulary", "is not the vocabulary"),
    "bits": ("huggingface", lambda c: _flip(c / "huggingface/model.safetensors"),
             "model.safetensors", "does not match its digest"),
    "numbers": ("huggingface", lambda c: _nan(c, "huggingface", "albert.pooler.bias"), "parameters",
                "NaN"),
    "numbers of a head": ("tuned", lambda c: _nan(c, "tuned", "classifier.bias"), "parameters", "NaN"),
    "tokenizer.json": ("huggingface", lambda c: _text(c / "huggingface/tokenizer.json", '"q"', '"Q"'),
                       "vocabulary", "other tokens"),
    "spiece.model": ("huggingface", lambda c: (c / "huggingface/spiece.model").write_bytes(SWAPPED.model),
                     "vocabulary", "is not the vocabulary"),
    "size": ("tuned", lambda c: _text(c / "tuned/config.json", '"hidden_size": 16', '"hidden_size": 99999'),
             "parameters", "hidden_size"),
    "report": ("tuned", lambda c: (c / "tuned/conversion.json").write_text("["), "model.safetensors",
               "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "damage", "name", "found"), DAMAGE.values(), ids=DAMAGE)
def test_each_kind_of_damage_is_named(copy, capsys, kind, damage, name, found):
    damage(copy)
    before = _snapshot(copy)
    assert cli.main(["verify", str(copy / kind)]) == 4
    out, err = capsys.readouterr()
    wrong = [line for line in out.splitlines() if "DAMAGED" in line]
    assert any(name in line and found in line for line in wrong), out
    assert "checks failed, the first: " in err.splitlines()[-1] and "Traceback" not in err
    assert _snapshot(copy) == before


def test_an_unfinished_save_is_no_damage(copy, capsys):
    (copy / "run" / "checkpoints" / "15").mkdir()
    assert cli.main(["verify", str(copy / "run")]) == 0
    assert "an unfinished save" in capsys.readouterr().out


def test_models_of_others_pass_without_digest_and_fingerprint(copy, capsys):
    path = copy / "huggingface" / "config.json"
    entries = json.loads(path.read_text())
    del entries["albert_jax_vocabulary_sha256"]
    path.write_text(json.dumps(entries))
    (copy / "huggingface" / "conversion.json").unlink()
    assert cli.main(["verify", str(copy / "huggingface")]) == 0
    out = capsys.readouterr().out
    assert "no digest was noted" in out and "unverified" in out


@pytest.mark.parametrize("kind", ["nowhere", "empty", "file", "pipe"])
def test_a_path_that_is_none_of_ours(copy, tmp_path, capsys, kind):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("text")
    elif kind == "pipe":
        os.mkfifo(path)
    assert cli.main(["verify", str(copy / "run"), str(path)]) == 4
    out, err = capsys.readouterr()
    assert not out and f"{path} is not a run, a prepared folder or an exported directory" in err
    assert len(err.splitlines()) == 1


def test_a_run_of_another_version_is_not_called_damaged(copy, capsys):
    run = copy / "run"
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("[model]", "[model]\nrotary_base = 1"))
    record = json.loads((run / "record.json").read_text())
    record["environment"] = {"packages": {"albert-jax": "9.0.0"}}
    (run / "record.json").write_text(json.dumps(record))
    assert cli.main(["verify", str(run)]) == 2
    said = capsys.readouterr()
    assert "use albert-jax 9.0.0" in said.err and "DAMAGED" not in said.out + said.err
