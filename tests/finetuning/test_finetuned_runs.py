"""The uses of fine-tuned runs: evaluation, prediction, other depths, another task, scores."""

from __future__ import annotations

import io
import json
import shutil

import pytest

from albert_jax.model_io import model as models
from tests.finetuning.small_runs import call, command


def test_depths_of_a_fine_tuned_run(data, tuned, capsys):
    code, out, err = call(capsys, "evaluate", tuned, "--num-layers", "1", "3", "--cosines", "True")
    assert code == 0, err
    results = json.loads((tuned / "evaluation.json").read_text())["results"]
    one, three = (found["scores"] for found in results)
    low, high = results[0]["interval_95"]
    assert low <= one["accuracy"] <= high and [r["num_layers"] for r in results] == [1, 3]
    assert 0 <= one["accuracy"] <= 1 and "forward_flops_per_token" in out
    assert one["forward_flops_per_token"] < three["forward_flops_per_token"]
    assert one["cosine_of_layer_1"] == pytest.approx(three["cosine_of_layer_1"], rel=1e-6)
    assert "accuracy" in (tuned / "depths.svg").read_text() and "depths.svg" in out
    assert "cosine_of_layer_3" in three and "cosine_of_layer_2" not in one

    arguments = ["predict", tuned, "--input", data / "classes.tsv", "--num-layers", "3"]
    code, out, err = call(capsys, *arguments, "--exit-confidence", "0.9")
    assert code == 0, err
    predictions = [json.loads(line) for line in out.splitlines()]
    assert len(predictions) == 12
    assert {prediction["num_layers"] for prediction in predictions} <= {1, 2, 3}
    (line,) = [line for line in err.splitlines() if "of 3 layers on average" in line]
    assert "12 examples" in line
    code, _, err = call(capsys, *arguments, "--exit-confidence", "0")
    assert code == 2 and "--exit-confidence 0" in err
    code, _, err = call(capsys, "predict", tuned, "a", "--num-layers", "0")
    assert code == 2 and "--num-layers 0" in err


def test_weights_of_a_fine_tuned_run_start_another_task(data, tuned, tmp_path, capsys):
    model = models.load(str(tuned), step="best")
    assert model.params["head"]["classifier"]["kernel"].shape == (16, 2)
    code, _, err = call(
        capsys, *command(data, "token-classification", tmp_path / "run", "--init", tuned)
    )
    assert code == 0, err
    head = models.load(str(tmp_path / "run")).params["head"]
    assert head["classifier"]["kernel"].shape == (16, 2)
    assert models.load(str(tmp_path / "run")).run_config.task.labels == ("O", "B-X")


def test_scores_of_sentences_and_minimal_pairs(data, capsys, tmp_path):
    code, out, err = call(
        capsys, "score", data / "model", data / "pairs.jsonl", "--out", tmp_path / "s.jsonl"
    )
    assert code == 0, err
    names = [line.split("  ")[0] for line in out.splitlines()[1:]]
    assert names[:4] == ["mean over sets", "all", "set0", "set1"]
    assert (tmp_path / "s.jsonl.svg").read_text().startswith("<?xml")
    first = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    (tmp_path / "a.txt").write_text(f"{first['sentence_good']}\nthe file\n")
    code, out, err = call(capsys, "score", data / "model", tmp_path / "a.txt")
    assert code == 0, err
    predictions = [json.loads(line) for line in out.splitlines()]
    assert predictions[0]["score"] == pytest.approx(first["score_good"], rel=1e-4)
    assert predictions[1]["score"] < 0
    code, _, err = call(capsys, "score", data / "model", tmp_path / "a.txt", "--num-layers", "0")
    assert code == 2 and "--num-layers 0" in err


def test_columns_of_predict_name_texts_labels_and_what_to_ignore(tuned, tmp_path, capsys):
    """Two texts are read as two, whatever stands beside them."""

    def predicted(text: str, *options: str) -> list[dict]:
        (tmp_path / "a.tsv").write_text(text)
        code, out, err = call(capsys, "predict", tuned, "--input", tmp_path / "a.tsv", *options)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    one, two = "the file is found", "a folder holds the name"
    (both,) = predicted(f"sentence1\tsentence2\n{one}\t{two}\n")
    (first,) = predicted(f"sentence\n{one}\n")
    assert both != first
    for columns, line in (
        ("sentence1, sentence2", f"{one}\t{two}"),
        ("sentence1,sentence2,label", f"{one}\t{two}\t"),
        ("-,sentence1,sentence2", f"7\t{one}\t{two}"),
    ):
        names = columns.replace("-", "number").replace(", ", ",").replace(",", "\t")
        assert predicted(f"{line}\n", "--columns", columns) == [both]
        assert predicted(f"{names}\n{line}\n", "--columns", columns) == [both]


def test_lines_on_stdin_that_are_not_utf8(tuned, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"fine\ncaf\xe9\n")))
    code, _, err = call(capsys, "predict", tuned, "--input", "-")
    assert code == 3 and "stdin:2" in err and "UTF-8" in err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufefffine\n".encode())))
    code, out, _ = call(capsys, "predict", tuned, "--input", "-")
    assert code == 0 and len(out.splitlines()) == 1


def test_a_run_whose_training_examples_are_gone_is_measured(tuned, data, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("train = ", 'train = "gone.tsv" # '))
    code, out, err = call(capsys, "evaluate", run, "--input", data / "classes.tsv")
    assert code == 0, err
    assert "gone.tsv: no such file" in out and "majority" not in out and "accuracy" in out
    other = tmp_path / "other.tsv"
    other.write_text("sentence\tlabel\nthe file\tmaybe\n")
    (tmp_path / "folder.tsv").mkdir()
    for train, part in (
        (other, "label 'maybe' is not one of"),
        (tmp_path / "folder.tsv", "it is a folder"),
    ):
        changed = config.replace("train = ", f'train = "{train}" # ')
        (run / "config.toml").write_text(changed)
        code, out, err = call(capsys, "evaluate", run, "--input", data / "classes.tsv")
        assert code == 0 and part in out and "majority" not in out, out + err


def test_a_bad_example_far_behind_is_reported_before_the_first_prediction(tuned, tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("sentence\n" + "the file\n" * 1100 + "\u200b\n")
    code, out, err = call(capsys, "predict", tuned, "--input", tmp_path / "a.tsv")
    assert code == 3 and not out and "a.tsv:1102" in err


def test_denoising_steps_are_shown_and_temperature_draws(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert call(capsys, *command(data, "generation", run, "--init", data / "model"))[0] == 0
    arguments = ["predict", run, "the file", "--denoising-steps", "2", "--show-steps", "True"]
    _, out, err = call(capsys, *arguments)
    assert len(err.splitlines()) == 2 and "text" in json.loads(out)
    drawn = {
        call(capsys, "predict", run, "the file", "--temperature", "2", "--seed", seed)[1]
        for seed in ("1", "2", "1")
    }
    assert len(drawn) == 2
    # An option that the task does not have is refused before the input is read.
    code, out, err = call(capsys, "predict", run, "--input", "missing.tsv", "--top-k", "2")
    assert code == 2 and not out and "--top-k: generation gives one answer" in err
    code, out, err = call(capsys, "fill-mask", run, "the [MASK] is found")
    assert code == 0, err
