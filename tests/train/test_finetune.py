"""Each task family trained for a few steps, evaluated and applied; what is refused, and how."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from albert_jax import api, cli, configfile
from albert_jax.config import Config, PhaseConfig, TaskConfig
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.errors import DataError
from albert_jax.finetune import finetune
from albert_jax.finetune import setup as settling
from albert_jax.model_io import model as loading
from albert_jax.tasks.families import FAMILIES
from albert_jax.tasks.old_registry import TASKS

QUICK = ["--phases.0.sequence-length", "32", "--phases.0.batch-size", "4", "--max-steps", "3",
         "--run.logging-steps", "1", "--optimizer.learning-rate", "1e-2"]  # fmt: skip
WORDS = ("the file is found", "the value is not found", "a folder holds the name",
         "it returns nothing", "every thread waits", "the name is read from the file")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of every format, and a directory of random weights to start from."""
    folder = tmp_path_factory.mktemp("data")

    def write(name: str, lines: list[str]) -> None:
        (folder / name).write_text("\n".join(lines) + "\n")

    pairs = [(WORDS[i % 6], WORDS[(i + 1 + i % 2) % 6], i) for i in range(12)]
    write(
        "classes.tsv",
        ["sentence\tlabel", *(f"{a}\t{'not' if 'not' in a else 'yes'}" for a, _, _ in pairs)],
    )
    write("scores.csv", [f"{a},{b},{i / 4}" for a, b, i in pairs])
    write("embedding.tsv", ["sentence1\tsentence2", *(f"{a}\t{b}" for a, b, _ in pairs)])
    write(
        "choice.jsonl",
        [
            json.dumps(
                {"context": a, "question": "what _", "choices": [b, "nothing"], "label": i % 2}
            )
            for a, b, i in pairs
        ],
    )
    write(
        "tags.conll",
        [
            line
            for a, _, _ in pairs
            for line in [*(f"{w} {'B-X' if w == 'file' else 'O'}" for w in a.split()), ""]
        ],
    )
    write(
        "generation.jsonl",
        [
            json.dumps({"source": a, "target": "not found" if "not" in b else "found"})
            for a, b, _ in pairs
        ],
    )
    write(
        "pairs.jsonl",
        [
            json.dumps({"sentence_good": a, "sentence_bad": b, "UID": f"set{i % 2}"})
            for a, b, i in pairs
        ],
    )
    for version in ("v1", "v2"):
        asked = [
            {"id": f"q{i}", "question": "what is found", **(
                {"answers": [], "is_impossible": True} if version == "v2" and i % 2
                else {"answers": [{"text": a.split()[1], "answer_start": a.index(a.split()[1])}]}
            )}
            for i, (a, _, _) in enumerate(pairs)
        ]  # fmt: skip
        paragraphs = [
            {"context": a, "qas": [question]}
            for (a, _, _), question in zip(pairs, asked, strict=True)
        ]
        write(
            f"squad-{version}.json",
            [json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]})],
        )
    tiny_models.directory(folder)
    return folder


FILES = {
    "classification": ("classes.tsv", [], "the file is not found"),
    "regression": ("scores.csv", ["--columns", "sentence1,sentence2,score"], "the file\tthe name"),
    "choice": ("choice.jsonl", ["--task.choices", "2", "--task.qa-length", "16"], "the file\tis found\tis not"),
    "squad-v1": ("squad-v1.json", ["--task.query-length", "8", "--task.stride", "4"], "what is found\tthe file is found"),
    "squad-v2": ("squad-v2.json", ["--task.query-length", "8", "--task.stride", "4"], "what is found\tthe file is found"),
    "tagging": ("tags.conll", [], "the file is"),
    "embedding": ("embedding.tsv", ["--task.group", "3"], "the file\tthe name"),
    "generation": ("generation.jsonl", ["--task.canvas", "12", "--task.rounds", "3"], "the file is"),
}  # fmt: skip


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def command(data: Path, name: str, out: Path, *more: str) -> list[str]:
    file, options, _ = FILES[name]
    return ["finetune", "--task", name, "--train", str(data / file), "--dev", str(data / file),
            "--out", str(out), *options, *QUICK, *more]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_family_trains_evaluates_and_predicts(name, data, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = command(data, name, run, "--init", str(data / "model"))
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "step 3 held out:" in out and "done, 3 steps now" in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == 3 and losses[-1] != losses[0] and np.isfinite(losses).all()
    (held_out,) = [row for row in rows if row["kind"] == "evaluation"]
    run_config = configfile.load(str(run))
    assert run_config.task is not None and run_config.task.metrics[0] in held_out
    assert run_config.steps == 3 and run_config.model.hidden_size == tiny_models.MODEL.hidden_size

    code, out, err = call(capsys, "evaluate", run)
    assert code == 0, err
    report = json.loads((run / "evaluation.json").read_text())
    (scores,) = [report["results"][key] for key in report["results"] if key != "majority"]
    assert scores[run_config.task.metrics[0]] == pytest.approx(
        held_out[run_config.task.metrics[0]],
        rel=1e-3,  # bfloat16, other batches
    )
    assert ("majority" in report["results"]) == (FAMILIES[name].baseline is not None)

    file, _, line = FILES[name]
    code, out, err = call(capsys, "predict", run, "--input", data / file)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 12
    code, out, err = call(capsys, "predict", run, line)
    assert code == 0, err
    assert set(json.loads(out)) == set(found[0])

    code, out, err = call(capsys, "export", run, "--out", tmp_path / "hf")
    if name == "squad-v2":
        assert code == 2 and "Transformers has no class" in err.splitlines()[-1]
        return
    assert code == 0, err
    described = json.loads((tmp_path / "hf" / "config.json").read_text())
    labels = ("score",) if name == "regression" else run_config.task.labels
    assert described.get("id2label", {}) == {str(i): label for i, label in enumerate(labels)}


def test_a_run_without_weights_says_so_goes_on_and_learns(data, tmp_path, capsys):
    train = tmp_path / "train.tsv"
    train.write_text("text\tlabel\n" + "".join(
        f"{word} {end}\t{kind}\n"
        for kind, word in (("good", "fine"), ("bad", "poor"))
        for end in ("day", "house", "road", "meal", "song", "book", "tale", "cup")
    ))  # fmt: skip
    arguments = ["finetune", "--train", str(train), "--dev", str(train), "--out", str(tmp_path / "run"),
                 "--model.hidden-size", "32", "--model.intermediate-size", "32", "--task.epochs", "20",
                 "--phases.0.batch-size", "8", "--optimizer.learning-rate", "5e-3"]  # fmt: skip
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    told = [line for line in err.splitlines() if "no --init" in line]
    assert len(told) == 1 and "width 32" in told[0] and "vocabulary of" in told[0]
    assert configfile.load(str(tmp_path / "run")).steps == 40
    assert "accuracy 1.000" in out
    code, out, err = call(capsys, *arguments)
    assert code == 0 and "done (40 of 40 steps)" in out
    code, out, _ = call(capsys, "predict", tmp_path / "run", "fine boat")
    assert json.loads(out)["label"] == "good"


def test_interrupted_equals_uninterrupted(data, tmp_path):
    """The batches are a pure function: half a run and its rest are the whole run."""
    config = Config(
        model=tiny_models.MODEL,
        phases=(PhaseConfig(steps=6, sequence_length=32, batch_size=4),),
        task=TaskConfig(train=str(data / "classes.tsv"), labels=("not", "yes")),
    )
    family = FAMILIES["classification"]
    examples = family.read(config.task.train, config.task, True)
    features = finetune.Features(family, tiny_models.vocabulary(), examples, config)
    again = finetune.Features(family, tiny_models.vocabulary(), examples, config)
    for step in range(5):
        whole = features.batch(0, step, np.arange(4))
        part = again.batch(0, step, np.array([1, 3]))
        for name, column in whole.items():
            np.testing.assert_array_equal(column[[1, 3]], part[name])
    seen = [features.batch(0, step, np.arange(4)) for step in range(3)]
    assert sum(batch["example_weights"].sum() for batch in seen) == 12


def test_rows_are_as_long_as_the_batch_needs_in_quarters(tmp_path):
    """One row per batch: its length is that of its own text, rounded up, and loses nothing."""
    texts = ["the file", " ".join(WORDS[:3]), " ".join(WORDS * 4)]
    path = tmp_path / "classes.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\tyes\n" for text in texts))
    config = Config(
        model=tiny_models.MODEL,
        phases=(PhaseConfig(steps=3, sequence_length=64, batch_size=1),),
        task=TaskConfig(train=str(path), labels=("not", "yes")),
    )
    family = FAMILIES["classification"]
    examples = family.read(config.task.train, config.task, True)
    features = finetune.Features(family, tiny_models.vocabulary(), examples, config)
    batches = [features.batch(0, step, np.arange(1)) for step in range(3)]
    lengths = sorted(batch["input_ids"].shape[1] for batch in batches)
    assert lengths[0] == 16 and lengths[2] == 64 and set(lengths) <= {16, 32, 48, 64}
    used = [family.tokens(feature) for feature in features.of(0)]
    seen = [int(np.count_nonzero(batch["segment_ids"])) for batch in batches]
    assert sorted(seen) == sorted(used)
    for batch, count in zip(batches, seen, strict=True):
        assert count > batch["input_ids"].shape[1] - 16


def test_epochs_and_limits_become_steps_and_warm_up_keeps_its_share():
    config = Config(phases=(PhaseConfig(steps=1000, batch_size=8),), task=TaskConfig(epochs=2.5))
    config = configfile.from_dict(
        {**configfile.to_dict(config), "optimizer": {"warmup_steps": 100}}, "x"
    )
    found = settling.with_steps(config, 80, 8, None)
    assert (found.steps, found.optimizer.warmup_steps) == (25, 2)
    assert settling.with_steps(found, 80, 8, None) == found
    short = settling.with_steps(config, 80, 8, 10)
    assert (short.steps, short.optimizer.warmup_steps, short.task.epochs) == (10, 1, 0)


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory) -> Path:
    """A classifier after three steps."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert cli.main(command(data, "classification", run, "--init", str(data / "model"))) == 0
    return run


def test_depths_of_a_fine_tuned_run(data, tuned, capsys):
    code, out, err = call(capsys, "evaluate", tuned, "--num-layers", "1,3", "--changes", "True")
    assert code == 0, err
    results = json.loads((tuned / "evaluation.json").read_text())["results"]
    one, three = results["1 layers"], results["3 layers"]
    assert 0 <= one["accuracy"] <= 1 and "forward_flops_per_token" in out
    assert one["forward_flops_per_token"] < three["forward_flops_per_token"]
    assert one["cosine_of_layer_1"] == pytest.approx(three["cosine_of_layer_1"], rel=1e-6)
    assert "cosine_of_layer_3" in three and "cosine_of_layer_2" not in one

    arguments = ["predict", tuned, "--input", data / "classes.tsv", "--num-layers", "3"]
    code, out, err = call(capsys, *arguments, "--exit-confidence", "0.9")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 12 and {one["num_layers"] for one in found} <= {1, 2, 3}
    (told,) = [line for line in err.splitlines() if "of 3 layers on average" in line]
    assert "12 examples" in told and "with all layers" in told
    code, _, err = call(capsys, *arguments, "--exit-confidence", "0")
    assert code == 2 and "--exit-confidence 0" in err
    code, _, err = call(capsys, "predict", tuned, "a", "--num-layers", "0")
    assert code == 2 and "--num-layers 0" in err


def test_weights_of_a_fine_tuned_run_start_another_task(data, tuned, tmp_path, capsys):
    model = loading.load(str(tuned), step="best")
    assert model.params["head"]["classifier"]["kernel"].shape == (16, 2)
    code, _, err = call(capsys, *command(data, "tagging", tmp_path / "run", "--init", str(tuned)))
    assert code == 0, err
    assert "tagger" in loading.load(str(tmp_path / "run")).params["head"]


def test_scores_of_sentences_and_minimal_pairs(data, capsys, tmp_path):
    code, out, err = call(
        capsys, "score", data / "model", data / "pairs.jsonl", "--out", tmp_path / "s.jsonl"
    )
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["all", "set0", "set1"]
    first = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    (tmp_path / "a.txt").write_text(f"{first['sentence_good']}\nthe file\n")
    code, out, err = call(capsys, "score", data / "model", tmp_path / "a.txt")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert found[0]["score"] == pytest.approx(first["score_good"], rel=1e-3)  # bfloat16
    assert found[1]["score"] < 0
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


def test_a_bad_example_far_behind_is_told_before_the_first_prediction(tuned, tmp_path, capsys):
    (tmp_path / "a.tsv").write_text("sentence\n" + "the file\n" * 1100 + "\u200b\n")
    code, out, err = call(capsys, "predict", tuned, "--input", tmp_path / "a.tsv")
    assert code == 3 and not out and "a.tsv:1102" in err


def test_first_numbers_fit_the_labels(tmp_path):
    family = FAMILIES["tagging"]
    for text, first in (("a B\nb I\n", "f1"), ("a NN\nb VB\n", "accuracy")):
        (tmp_path / "a.conll").write_text(text)
        task = TaskConfig(name="tagging", train="a", dev="a")
        examples = family.read(str(tmp_path / "a.conll"), task, True)
        assert settling.task(task, TASKS["tagging"], examples, examples).metrics[0] == first
    (tmp_path / "b.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\tentailment\n")
    task = TaskConfig(name="embedding", train="a", dev="a")
    examples = FAMILIES["embedding"].read(str(tmp_path / "b.tsv"), task, True)
    with pytest.raises(DataError, match=r"b\.tsv:2: score 'entailment'"):
        settling.task(task, TASKS["embedding"], examples, examples)


def test_rounds_are_shown_and_temperature_draws(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert call(capsys, *command(data, "generation", run, "--init", str(data / "model")))[0] == 0
    arguments = ["predict", run, "the file", "--denoising-steps", "2", "--show-steps", "True"]
    _, out, err = call(capsys, *arguments)
    assert len(err.splitlines()) == 2 and "text" in json.loads(out)
    drawn = {
        call(capsys, "predict", run, "the file", "--temperature", "2", "--seed", seed)[1]
        for seed in ("1", "2", "1")
    }
    assert len(drawn) == 2
    code, out, err = call(capsys, "fill-mask", run, "the [MASK] is found")
    assert code == 0, err


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
    (["--task.beam", "500", "5", "--task", "squad-v2"], 2, ["task.beam", "at most"]),
    (["--train", "FOLDER"], 7, ["it is a folder: name a file in it"]),
    (["--phases.0.sequence-length", "64"], 2, ["sequence_length", "48"]),
]


@pytest.mark.parametrize(("change", "exit_code", "parts"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_is_one_line_and_leaves_nothing(change, exit_code, parts, data, tmp_path, capsys):
    (tmp_path / "empty.tsv").write_text("sentence\tlabel\n\tyes\n")
    (tmp_path / "strange.tsv").write_text("sentence\tlabel\nthe file\tmaybe\n")
    (tmp_path / "folder.tsv").mkdir()
    names = {name: str(tmp_path / f"{name.lower()}.tsv") for name in ("EMPTY", "STRANGE", "FOLDER")}
    change = [names.get(word, word) for word in change]
    run = tmp_path / "run"
    arguments = command(data, "classification", run, "--init", str(data / "model"))
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
    arguments = command(data, "classification", tuned, "--init", str(data / "model"))
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
    from albert_jax.data.vocabularies import training as tokenizer_training

    other = tokenizer_training.from_texts(["some other text of few words " * 3], 40)
    (broken / "vocabulary" / name).write_bytes(other.files()[name])
    assert vocabularies.load(str(broken / "vocabulary")).size != 64
    code, _, err = call(
        capsys, *command(data, "classification", tmp_path / "run", "--init", str(broken))
    )
    assert code == 4 and "vocabulary has" in err.splitlines()[-1]


def test_presets_load_and_name_their_task():
    names = [name for name in configfile.presets() if name.startswith("finetune/")]
    assert "finetune/sst-2" in names and settling.SCRATCH in names
    for name in names:
        config = configfile.load(name)
        assert config.task is not None
        assert configfile.parse(configfile.dumps(config).encode(), "x.toml") == config
        base, same = configfile.base_of(name)
        assert (base, same) == (name, config)


def test_a_config_without_task_is_written_as_before():
    assert "task" not in configfile.dumps(Config())
    assert "task" not in dict(configfile.to_dict(Config()))


def test_commands_of_the_page(data, tmp_path, monkeypatch, capsys, root):
    """Every command of docs/fine-tuning.md works as it stands there, on these small files."""
    page = (root / "docs" / "fine-tuning.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^ {4}(albert-jax .*)$", page, re.M)
    assert len(commands) >= 6
    if importlib.util.find_spec("onnx") is None:  # an extra
        commands = [line for line in commands if "onnx" not in line]
    monkeypatch.chdir(data)
    monkeypatch.setattr("sys.stdin", None)
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] == "finetune":
            words = [w for w in words if not w.startswith("tfds:")] + QUICK
        words = [str(tmp_path / word) if word.startswith("work/") else word for word in words]
        code, _, err = call(capsys, *words)
        assert code == 0, f"{line}\n{err}"
