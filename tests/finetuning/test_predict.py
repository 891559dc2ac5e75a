"""Predictions as the command and Python give them; sentences as vectors and as tokens."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import select
import subprocess
import sys

import numpy as np
import pytest

import albert_jax
from albert_jax.configfile import preset_folder
from albert_jax.errors import CheckpointError, ConfigError, DataError
from albert_jax.model_io import model as models
from tests import tiny_models
from tests.finetuning.small_runs import call, command


@pytest.fixture(scope="session")
def pairs_model(data, tmp_path_factory):
    """A run that compares two texts."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = (data / "embedding.tsv").read_text().splitlines()[1:]
    labels = ("yes" if i % 2 else "no" for i in range(len(lines)))
    rows = [f"{line}\t{label}" for line, label in zip(lines, labels, strict=True)]
    (folder / "a.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows, ""]))
    path = str(folder / "a.tsv")
    files = ["--train", path, "--dev", path, "--init", str(data / "model")]
    arguments = command(data, "classification", folder / "run", *files)
    from albert_jax import cli

    assert cli.main(arguments) == 0
    return folder / "run"


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


def typed(monkeypatch, text: bytes):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_a_classifier_names_all_labels_and_its_input(tuned, capsys):
    code, out, err = call(capsys, "predict", tuned, "the file is found")
    assert code == 0, err
    [found] = lines_of(out)
    assert list(found) == ["input", "label", "probability", "probabilities"]
    assert found["input"] == "the file is found" and set(found["probabilities"]) == {"not", "yes"}
    values = list(found["probabilities"].values())
    assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1)
    assert found["probability"] == values[0] == found["probabilities"][found["label"]]
    [first] = lines_of(call(capsys, "predict", tuned, "the file is found", "--top-k", "1")[1])
    assert list(first["probabilities"]) == [found["label"]]
    code, _, err = call(capsys, "predict", tuned, "the file", "--top-k", "0")
    assert code == 2 and "--top-k 0" in err


def test_a_bad_line_keeps_the_answers_of_the_others(tuned, capsys, monkeypatch, tmp_path):
    typed(monkeypatch, "the file\n\nthe name\n\u200b\n a\tb\tc\nit is".encode() + b"\nfin\xe9\n")
    code, out, err = call(capsys, "predict", tuned, "--input", "-")
    found = lines_of(out)
    assert code == 3 and len(found) == 7
    assert [line.get("input") for line in found] == [
        "the file", None, "the name", None, None, "it is", None,
    ]  # fmt: skip
    assert [line.get("line") for line in found] == [None, 2, None, 4, 5, None, 7]
    assert "line 2: the text is empty" in found[1]["error"] and "no tokens" in found[3]["error"]
    assert "3 parts" in found[4]["error"] and "stdin:7: not UTF-8" in found[6]["error"]
    assert err.splitlines()[-1].startswith("albert-jax: 4 lines have no answer: line 2: the text")

    typed(monkeypatch, b"the file\n\n")
    code, out, err = call(capsys, "predict", tuned, "--input", "-", "--out", tmp_path / "o.jsonl")
    assert code == 3 and not out and "1 line has no answer" in err
    first = lines_of((tmp_path / "o.jsonl").read_text())[0]
    assert first["probability"] == pytest.approx(found[0]["probability"], abs=1e-5)
    typed(monkeypatch, b"\n")
    assert call(capsys, "predict", tuned, "--input", "-", "--exit-confidence", "0.9")[0] == 3


def test_lines_are_answered_one_by_one_as_they_come(tuned):
    process = subprocess.Popen(
        [sys.executable, "-m", "albert_jax", "predict", str(tuned), "--input", "-"],
        env=os.environ | {"PYTHONPATH": str(preset_folder().parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    for text in ("the file is found", "it returns nothing"):
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 120)[0], "no answer while stdin is open"
        assert json.loads(process.stdout.readline())["input"] == text
    process.stdin.close()
    assert process.stdout.read() == b"" and process.wait(60) == 0
    process.stdout.close()


def test_a_model_of_pairs_takes_no_single_text(pairs_model, capsys, tmp_path):
    code, out, err = call(capsys, "predict", pairs_model, "only one text")
    assert code == 3 and not out
    assert "1 part where classification takes 2: put a tab" in err
    [found] = lines_of(call(capsys, "predict", pairs_model, "the file\tthe name")[1])
    assert found["input"] == ["the file", "the name"]
    (tmp_path / "one.tsv").write_text("sentence\nthe file\n")
    code, _, err = call(
        capsys, "predict", pairs_model, "--input", tmp_path / "one.tsv", "--columns", "sentence"
    )
    assert code == 3 and "one.tsv:2: one text, but this model compares two" in err
    model = models.load(str(pairs_model))
    assert albert_jax.predict(model, [("the file", "the name")])[0]["input"] == found["input"]
    with pytest.raises(DataError, match=r"texts\[1\]: 1 part where"):
        albert_jax.predict(model, [("the file", "the name"), "the file"])


def test_inference_is_float32_whatever_the_training_was(tuned):
    model = albert_jax.load(str(tuned))
    compute = dataclasses.replace(model.run_config.compute, dtype="bfloat16")
    config = dataclasses.replace(model.run_config, compute=compute)
    rounded = dataclasses.replace(model, run_config=config)
    texts = ["the file is found"]
    assert albert_jax.predict(rounded, texts) == albert_jax.predict(model, texts)
    assert (albert_jax.embed(rounded, texts) == albert_jax.embed(model, texts)).all()


def test_one_answer_to_a_question(data, tmp_path, capsys):
    run = tmp_path / "run"
    code, _, err = call(capsys, *command(data, "squad-v1", run, "--init", data / "model"))
    assert code == 0, err
    question = "what is found\tthe file is found in the folder"
    [found] = lines_of(call(capsys, "predict", run, question)[1])
    assert set(found) == {"id", "text", "probability"}
    [more] = lines_of(call(capsys, "predict", run, question, "--top-k", "3")[1])
    assert len(more["best"]) == 3 and more["best"][0]["text"] == found["text"]


def test_python_gives_what_the_verb_prints(tuned, data, capsys, tmp_path):
    model = albert_jax.load(str(tuned))
    texts = ["the file is found", "it returns nothing"]
    (tmp_path / "a.tsv").write_text("\n".join(["sentence", *texts]))
    for options, arguments in (
        ({}, ()),
        ({"num_layers": 1, "top_k": 1}, ("--num-layers", 1, "--top-k", 1)),
    ):
        out = call(capsys, "predict", tuned, "--input", tmp_path / "a.tsv", *arguments)[1]
        assert lines_of(out) == albert_jax.predict(model, texts, **options)
    out = call(capsys, "embed", tuned, *texts)[1]
    vectors = albert_jax.embed(model, texts)
    assert [line["vector"] for line in lines_of(out)] == vectors.tolist()
    out = call(capsys, "tokenize", tuned, *texts, "--out", "-")[1]
    assert lines_of(out) == albert_jax.tokenize(model, texts)
    (tmp_path / "a.txt").write_text("\n".join([texts[0], "", texts[1]]))
    out = call(capsys, "score", data / "model", tmp_path / "a.txt")[1]
    assert lines_of(out) == albert_jax.score(albert_jax.load(str(data / "model")), texts)
    assert albert_jax.predict(model, []) == [] and albert_jax.embed(model, []).shape == (0, 16)
    assert albert_jax.score(albert_jax.load(str(data / "model")), []) == []


def test_python_raises_what_the_verb_says(tuned, data):
    model, plain = albert_jax.load(str(tuned)), albert_jax.load(str(data / "model"))
    with pytest.raises(CheckpointError, match="not fine-tuned"):
        albert_jax.predict(plain, ["the file"])
    with pytest.raises(ConfigError, match="--num-layers 0"):
        albert_jax.embed(plain, ["the file"], num_layers=0)
    with pytest.raises(DataError, match=r"texts\[1\]: text '' has no tokens"):
        albert_jax.embed(model, ["the file", ""])
    with pytest.warns(UserWarning, match="examples that lose tokens, because a row holds 32: 1"):
        albert_jax.predict(model, ["the file " * 40])
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than a row and are truncated"):
        albert_jax.embed(model, ["the file " * 40])


def test_a_model_is_loaded_without_warnings(tuned, caplog, capfd):
    albert_jax.load(str(tuned))
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_fine_tuning_in_python(data, tmp_path):
    file = str(data / "classes.tsv")
    model = albert_jax.finetune(
        str(tmp_path / "run"),
        task="classification",
        train=file,
        dev=file,
        init=str(data / "model"),
        max_steps=2,
        fields={"task.pooling": "mean", "phases.0.batch-size": 4, "run.logging_steps": 1},
    )
    assert model.step == 2 and model.run_config.phases[0].batch_size == 4
    assert model.run_config.task.pooling == "mean"
    options = {"task": "classification", "train": file, "dev": file}
    for fields, part in (
        ({"optimizer.lr": 1}, "unknown key 'optimizer.lr'"),
        ({"phases.7.steps": 1}, "no section '7' for 'phases.7.steps'"),
        ({"phases.0": 1}, "'phases.0' has no name"),
        ({"task.pooling": "max"}, "task.pooling must be one of"),
    ):
        with pytest.raises(ConfigError, match=part):
            albert_jax.finetune(str(tmp_path / "other"), **options, fields=fields)
    with pytest.raises(ConfigError, match="--teacher: regression has no such setting"):
        albert_jax.finetune(str(tmp_path / "other"), task="regression", teacher="x")


def test_vectors_of_sentences(data, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = command(data, "sentence-embedding", run, "--init", data / "model")
    assert call(capsys, *arguments)[0] == 0
    [pair] = lines_of(call(capsys, "predict", run, "the file\tthe name")[1])
    (tmp_path / "a.txt").write_text("the file\nthe name\n")
    code, out, err = call(
        capsys, "embed", run, "--input", tmp_path / "a.txt", "--out", tmp_path / "v.npy"
    )
    assert code == 0 and out.startswith("2 vectors of 16 numbers: "), err
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.allclose(vectors, [pair["first"], pair["second"]], atol=1e-5)

    # Any other model gives the mean of its states; long texts are truncated, and that is said.
    model = albert_jax.load(str(data / "model"))
    batch = albert_jax.rows(model.vocabulary, ["the name"], length=48)
    states = albert_jax.encode(model.params, model.config, batch)[0]
    mean = np.asarray(states)[batch["segment_ids"][0] > 0].mean(0)
    assert np.allclose(albert_jax.embed(model, ["the name"])[0], mean, atol=1e-5)
    arguments = ["embed", data / "model", "the name", "the file " * 60]
    code, out, err = call(capsys, *arguments, "--out", tmp_path / "v.jsonl")
    assert code == 0 and not out and "1 of 2 texts are longer" in err
    assert np.allclose(lines_of((tmp_path / "v.jsonl").read_text())[0]["vector"], mean, atol=1e-5)
    for more, exit_code, part in (
        (("--out", "v.csv"), 2, "ends in .npy or .jsonl"),
        (("--input", "x"), 2, "either TEXT or --input"),
        (("--num-layers", "0"), 2, "--num-layers 0"),
    ):
        code, _, err = call(capsys, "embed", data / "model", "the name", *more)
        assert code == exit_code and part in err
    (tmp_path / "b.txt").write_text("the file\n\nthe name\n")
    code, _, err = call(capsys, "embed", run, "--input", tmp_path / "b.txt")
    assert code == 3 and "b.txt:2: text '' has no tokens" in err
    (tmp_path / "b.jsonl").write_text('{"sentence": null}\n')
    code, _, err = call(capsys, "embed", run, "--input", tmp_path / "b.jsonl")
    assert code == 3 and "b.jsonl:1: sentence is None, not a text" in err


def test_tokens_stand_above_their_ids(data, tuned, capsys, tmp_path, monkeypatch):
    vocabulary = tiny_models.vocabulary()
    for path in (data / "model", tuned):
        code, out, err = call(capsys, "tokenize", path, "the [MASK] file")
        assert code == 0, err
        text, tokens, ids = out.splitlines()
        assert text == "the [MASK] file" and "[MASK]" in tokens.split()
        assert [vocabulary.id_to_token(int(id)) for id in ids.split()] == tokens.split()
        assert [tokens.index(token) for token in tokens.split()[2:]] == [
            ids.index(f" {id}") + 1 for id in ids.split()[2:]
        ]
    typed(monkeypatch, b"the file\n")
    code, out, _ = call(
        capsys, "tokenize", data / "model", "--input", "-", "--out", tmp_path / "t.jsonl"
    )
    assert code == 0 and not out
    assert lines_of((tmp_path / "t.jsonl").read_text())[0]["text"] == "the file"
    code, _, err = call(capsys, "tokenize", tmp_path, "the file")
    assert code == 3 and str(tmp_path) in err
