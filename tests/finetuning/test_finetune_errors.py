"""Bad input of fine-tuning and of fine-tuned runs: one line that names it, and nothing is left."""

from __future__ import annotations

import json

import pytest

from albert_jax import api
from albert_jax.data.vocabularies import training
from albert_jax.data.vocabularies import vocabulary as vocabularies
from tests import tiny_models
from tests.finetuning.small_runs import call, command

TOO_MANY_STARTS = (
    "--task squad-v2 --train SQUAD --dev SQUAD --task.max-query-length 8 --task.start-n-top 500"
)
BAD = [
    (["--columns", "sentence,lable"], 3, ["classes.tsv:1", "'lable'"]),
    (["--task.labels", "yes", "no"], 3, ["classes.tsv:3", "label 'not'", "yes, no"]),
    (["--task", "clasification"], 2, ["clasification", "did you mean classification?"]),
    (["--task", "poetry"], 2, ["poetry", "generation"]),
    (["--model.hidden-size", "96"], 4, ["hidden_size 16", "96"]),
    (["--init", "nowhere"], 4, ["nowhere"]),
    (["--train", "gone.tsv"], 3, ["gone.tsv", "no such file"]),
    (["--dev", "EMPTY"], 3, ["empty.tsv:2", "sentence is empty"]),
    (["--dev", "STRANGE"], 3, ["strange.tsv:2", "'maybe'"]),
    (["--task.metrics", "pearson"], 2, ["task.metrics", "accuracy"]),
    (["--max-steps", "0"], 2, ["--max-steps 0"]),
    (["--phases.0.packing", "True"], 2, ["phases.0.packing is for pretraining"]),
    (["--phases.0.objective.mask-rate", "0.3"], 2, ["phases.0.objective is for pretraining"]),
    (TOO_MANY_STARTS.split(), 2, ["task.start_n_top", "at most 32"]),
    (["--train", "FOLDER"], 7, ["it is a folder: name a file in it"]),
    (["--phases.0.sequence-length", "64"], 2, ["sequence_length", "48 positions: give at most"]),
    (["--train", "INSIDE"], 3, ["it is a folder", "for example", "inside/train.tsv"]),
    (["--train", "BARE"], 3, ["the first line is an example and no header", "--columns"]),
    (["--train", "CHINESE"], 3, ["chinese.tsv:2", "iconv -f GB18030 -t UTF-8"]),
    (["--init", "albert-base-v2"], 4, ["hf download albert/albert-base-v2 --local-dir"]),
    (["--init", "PREPARED"], 4, ["prepared data and holds no weights"]),
]


@pytest.mark.parametrize(("change", "exit_code", "parts"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_is_one_line_and_leaves_nothing(change, exit_code, parts, data, tmp_path, capsys):
    (tmp_path / "empty.tsv").write_text("sentence\tlabel\n\tyes\n")
    (tmp_path / "strange.tsv").write_text("sentence\tlabel\nthe file\tmaybe\n")
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "bare.tsv").write_text("the file is found\tyes\nthe file\tnot\n")
    (tmp_path / "chinese.tsv").write_bytes("text\tlabel\n菜凉了，没人道歉。\tyes\n".encode("gbk"))
    for name, inside in (("inside", "train.tsv"), ("prepared", "manifest.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).write_text("{}")
    names = ("EMPTY", "STRANGE", "FOLDER", "BARE", "CHINESE")
    files = {name: tmp_path / f"{name.lower()}.tsv" for name in names}
    files |= {name: tmp_path / name.lower() for name in ("INSIDE", "PREPARED")}
    files["SQUAD"] = data / "squad-v2.json"
    change = [str(files.get(word, word)) for word in change]
    run = tmp_path / "run"
    arguments = command(data, "classification", run, "--init", data / "model")
    if change[0] in arguments:
        at = arguments.index(change[0])
        arguments[at : at + 2] = []
    arguments += change
    code, out, err = call(capsys, *arguments)
    last = err.rstrip("\n").splitlines()[-1]
    assert code == exit_code, err
    assert last.startswith("albert-jax: ") and "Traceback" not in err
    for part in parts:
        assert part in last
    assert not run.exists()


def test_other_bad_input(data, tuned, tmp_path, capsys):
    def last(*arguments, exit_code):
        code, _, err = call(capsys, *arguments)
        assert code == exit_code, err
        return err.rstrip("\n").splitlines()[-1]

    assert "finetune" in last(
        "pretrain", "--config", "finetune/rte", "--out", tmp_path / "x", exit_code=2
    )
    assert "not fine-tuned" in last("predict", data / "model", "a", exit_code=4)
    assert "nothing there" in last("predict", tmp_path / "nowhere", "a", exit_code=4)
    assert "3 parts" in last("predict", tuned, "a\tb\tc", exit_code=3)
    for given in ("inf", "nan", "1e-320", "-1"):
        assert "--temperature" in last("predict", tuned, "a", "--temperature", given, exit_code=2)
    for given in (("--temperature", "0.5"), ("--seed", "1"), ("--show-steps", "True")):
        assert "for generation" in last("predict", tuned, "a", *given, exit_code=2)
    assert "--seed -1" in last("predict", tuned, "a", "--seed", "-1", exit_code=2)
    pairs = {"sentence_good": "the file", "sentence_bad": "file the", "UID": "all"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pairs))
    assert "named 'all'" in last("score", data / "model", tmp_path / "pairs.jsonl", exit_code=3)
    assert "empty" in last("predict", tuned, " ", exit_code=3)
    assert "TEXT" in last("predict", tuned, exit_code=2)
    assert "masked-language head" in last("score", tuned, data / "pairs.jsonl", exit_code=4)
    (tmp_path / "long.txt").write_text("the file " * 40)
    assert "long.txt:1" in last("score", data / "model", tmp_path / "long.txt", exit_code=3)
    # Another label set or another file than the run began with.
    arguments = command(data, "classification", tuned, "--init", data / "model")
    assert "task.labels" in last(*arguments, "--task.labels", "yes", "not", exit_code=2)
    other = tmp_path / "classes.tsv"
    other.write_text((data / "classes.tsv").read_text() + "one more\tyes\n")
    arguments[arguments.index("--train") + 1] = str(other)
    assert "task.train" in last(*arguments, exit_code=2)


def test_vocabulary_of_another_size(data, tmp_path, capsys):
    broken = tmp_path / "broken"
    api.save(tiny_models.model(), str(broken))
    small = tiny_models.vocabulary().files()
    name = next(name for name in small if name.endswith(".model"))
    other = training.from_texts(["some other text of few words " * 3], 40)
    (broken / "vocabulary" / name).write_bytes(other.files()[name])
    assert vocabularies.load(str(broken / "vocabulary")).size != 64
    code, _, err = call(
        capsys, *command(data, "classification", tmp_path / "run", "--init", str(broken))
    )
    assert code == 4 and "vocabulary has" in err.splitlines()[-1]
