"""A newcomer's first run: examples, weights with few positions, and words about what came out."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from albert_jax import cli, config_builder, configfile
from albert_jax.config import Config
from albert_jax.errors import ConfigError
from albert_jax.evaluation import confusion
from albert_jax.finetuning import run_config
from albert_jax.tasks import registry
from albert_jax.tasks.classification import ClassificationConfig, RegressionConfig
from albert_jax.tasks.support.columns import TextExample
from tests import tiny_models
from tests.finetuning.small_runs import call, command
from tests.test_examples import FOLDERS, TASKS, file

POSITIONS = 64


@pytest.fixture
def begun(monkeypatch) -> list[Config]:
    """The complete configs of the runs that began; nothing is trained."""
    configs: list[Config] = []
    monkeypatch.setattr(
        "albert_jax.train.run.run_training", lambda config, *_, **__: configs.append(config)
    )
    return configs


def start(folder: str, out: Path, *more: object) -> list[str]:
    """The arguments that a newcomer gives."""
    return ["finetune", "--task", TASKS[folder], "--train", str(file(folder, "train")),
            "--dev", str(file(folder, "dev")), "--out", str(out), *map(str, more)]  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("pretrained", [True, False])
def test_every_example_starts_without_further_options(
    folder, pretrained, weights, begun, tmp_path, capsys
):
    more = ["--init", weights] if pretrained else []
    code, out, err = call(capsys, *start(folder, tmp_path / "run", *more))
    assert code == 0, err
    (config,) = begun
    assert config.phases[0].sequence_length == (POSITIONS if pretrained else 128)
    if pretrained:
        assert "rows of 64 tokens (not 128), the positions of the weights" in out
    counts = [len(registry.create(config.task).read_examples(path, labelled=True))
              for path in (config.task.train, config.task.dev)]  # fmt: skip
    assert f"{counts[0]} training and {counts[1]} dev examples" in out
    for name, most in registry.create(config.task).fitting_settings(POSITIONS).items():
        assert not pretrained or getattr(config.task, name) <= most


def test_presets_follow_the_weights_and_typed_values_do_not(weights, begun, tmp_path, capsys):
    squad = ["--config", "finetune/squad-v1", "--init", weights]
    assert call(capsys, *start("questions", tmp_path / "a", *squad))[0] == 0
    typed = [*squad, "--task.doc-stride=30", "--phases.0.sequence-length", "48"]
    assert call(capsys, *start("questions", tmp_path / "b", *typed))[0] == 0
    preset, own = begun
    assert (preset.phases[0].sequence_length, preset.task.doc_stride) == (64, 21)
    assert (own.phases[0].sequence_length, own.task.doc_stride) == (48, 30)
    assert own.task.max_query_length == 24
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "finetune/default"\n[[phases]]\nsequence_length = 128\n')
    for options in (["--phases.0.sequence-length", "128"], ["--config", mine]):
        change = start("reviews", tmp_path / "c", "--init", weights, *options)
        code, _, err = call(capsys, *change)
        if options[0] == "--config":  # The same value as in what the file extends.
            assert code == 0, err
            continue
        assert code == 2 and f"{weights} have 64 positions: give at most 64" in err
    mine.write_text('[[phases]]\nsequence_length = 100\n[task]\nname = "classification"\n')
    code, _, err = call(
        capsys, *start("reviews", tmp_path / "d", "--init", weights, "--config", mine)
    )
    assert code == 2 and "sequence_length is 100" in err and "64 positions" in err


def test_rows_are_no_longer_than_those_of_the_teacher():
    config = config_builder.with_task(configfile.load("finetune/scratch"), "classification")
    teacher = tiny_models.model()
    fitted, line = run_config.fit_to_weights(config, (), "the new network", teacher)
    assert fitted.phases[0].sequence_length == 48 and "48" in line
    with pytest.raises(ConfigError, match="memory have 48 positions"):
        run_config.fit_to_weights(config, ("phases.0.sequence_length",), "the new network", teacher)


@pytest.mark.parametrize(
    ("width", "rate"), [(1024, 5e-5), (768, 5e-5), (512, 2.5e-4), (384, 8e-4), (16, 8e-4)]
)
def test_narrow_weights_learn_at_a_higher_rate_unless_it_is_given(width, rate):
    config = config_builder.with_task(configfile.load("finetune/default"), "classification")
    model = replace(config.model, hidden_size=width, num_attention_heads=4)
    config = replace(config, model=model)
    fitted, line = run_config.fit_to_weights(config, (), "RUN")
    assert fitted.optimizer.learning_rate == rate
    assert (f"learning rate {rate:g} (not 5e-05)" in line) == (width < 768)
    fitted, line = run_config.fit_to_weights(config, ("optimizer.learning_rate",), "RUN")
    assert fitted.optimizer.learning_rate == 5e-5 and "rate" not in line


def test_texts_that_are_cut_are_counted(data, tmp_path, capsys):
    lines = (data / "classes.tsv").read_text() + "the file is found " * 9 + "\tyes\n"
    (tmp_path / "long.tsv").write_text(lines)
    run = tmp_path / "run"
    arguments = command(data, "classification", run, "--init", data / "model", "--max-steps", 1)
    code, out, err = call(capsys, *arguments, "--train", tmp_path / "long.tsv")
    assert code == 0, err
    assert "13 training and 12 dev examples, 2 labels (not, yes), rows of 32 tokens; " in out
    assert "1 training and 0 dev examples are longer and are truncated" in out
    _, out, err = call(capsys, "predict", run, "--input", tmp_path / "long.tsv")
    assert "examples that lose tokens, because a row holds 32: 1" in err
    assert len(out.splitlines()) == 13
    _, out, _ = call(capsys, "evaluate", run, "--input", tmp_path / "long.tsv")
    assert "examples that lose tokens, because a row holds 32: 1" in out


@pytest.mark.parametrize(
    ("name", "options", "answer"),
    [("classification", ["--task.pooling", "cls"], "'yes'"), ("generation", [], "empty text")],
)
def test_a_run_with_one_answer_for_everything_is_told_in_words(
    name, options, answer, data, tmp_path, capsys, monkeypatch
):
    kind = registry.get(name)
    constant = {"label": "yes", "probability": 0.6} if name == "classification" else {"text": ""}
    monkeypatch.setattr(kind, "predict", lambda self, examples, *_: [constant] * len(examples))
    arguments = command(data, name, tmp_path / "run", "--init", data / "model")
    code, out, err = call(capsys, *arguments, *options, "--optimizer.learning-rate", "1e-4")
    assert code == 0, err
    last = out.splitlines()[-1]
    assert f"predicts {answer} for every dev example, so it has learned nothing" in last
    assert "more epochs" in last and "--optimizer.learning-rate 5e-05" in last
    assert ("--task.pooling mean" in last) == (name == "classification")
    _, out, _ = call(capsys, "evaluate", tmp_path / "run")
    assert "for every example" in out


def test_scores_that_hardly_differ_are_one_answer():
    task = registry.create(RegressionConfig())
    examples = [TextExample("", ("a", "b"), str(i % 6)) for i in range(12)]
    flat = [{"score": 2.5 + 0.02 * (i % 2)} for i in range(12)]
    assert task.single_answer(examples, flat) == "about 2.51"
    assert task.single_answer(examples, [{"score": float(i % 3)} for i in range(12)]) == ""


def test_generation_trains_without_sacrebleu(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    run = tmp_path / "run"
    arguments = command(data, "generation", run, "--init", data / "model")
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "pip install sacrebleu" in err and "albert-jax[" not in err
    assert "held out: exact" in out
    code, _, err = call(capsys, *arguments, "--out", tmp_path / "b", "--task.metrics", "bleu")
    assert code == 2 and "pip install sacrebleu" in err.splitlines()[-1]


def test_evaluate_shows_confusions_and_the_worst_errors(data, tuned, capsys):
    code, out, err = call(capsys, "evaluate", tuned)
    assert code == 0, err
    report = json.loads((tuned / "evaluation.json").read_text())
    counts, labels = report["confusion"]["counts"], report["confusion"]["labels"]
    assert labels == ["not", "yes"] and sum(map(sum, counts)) == 12
    accuracy = report["results"][0]["scores"]["accuracy"]
    assert (counts[0][0] + counts[1][1]) / 12 == pytest.approx(accuracy)
    assert len(report["worst_errors"]) == counts[0][1] + counts[1][0] <= confusion.WORST
    for wrong in report["worst_errors"]:
        assert wrong["label"] != wrong["predicted"] and wrong["texts"][0] in out
    assert "true \\ predicted" in out
    assert "confusion.svg" in out and ">yes<" in (tuned / "confusion.svg").read_text()


def test_errors_are_sorted_and_many_labels_are_listed():
    labels = tuple(f"label {i}" for i in range(20))
    task = registry.create(ClassificationConfig(labels=labels))
    examples = [TextExample(f"f:{i}", (f"text {i}",), labels[i % 2]) for i in range(6)]
    predictions = [{"label": labels[0], "probability": 0.5 + 0.05 * i} for i in range(6)]
    found = confusion.of_predictions(task, examples, predictions)
    assert found is not None
    assert [wrong.where for wrong in found.worst] == ["f:5", "f:3", "f:1"]
    assert found.lines()[0] == "label 1, taken for label 0: 3 times"
    task = registry.create(ClassificationConfig(labels=("消极", "积极")))
    examples = [TextExample("f:1", ("好吃",), "积极"), TextExample("f:2", ("难吃",), "消极")]
    found = confusion.of_predictions(task, examples, [{"label": "积极", "probability": 0.9}] * 2)
    assert found is not None
    assert found.lines()[:4] == [
        "true \\ predicted  消极   积极  recall",
        "消极                 0      1    0.0%",
        "积极                 0      1  100.0%",
        "precision         0.0%  50.0%",
    ]


def test_labels_may_be_given_names(data, tmp_path, capsys):
    numbers = (data / "classes.tsv").read_text().replace("\tnot\n", "\t0\n").replace("\tyes", "\t1")
    (tmp_path / "numbers.tsv").write_text(numbers)
    run, table = tmp_path / "run", tmp_path / "numbers.tsv"
    arguments = command(data, "classification", run, "--init", data / "model", "--train", table,
                        "--dev", table, "--max-steps", 1)  # fmt: skip
    code, _, err = call(capsys, *arguments, "--task.label-names", "negative", "and", "positive")
    assert code == 2 and "task.label_names has 3 names, but the labels are 0, 1" in err
    code, out, err = call(capsys, *arguments, "--task.label-names", "negative", "positive")
    assert code == 0 and "2 labels (negative, positive)" in out, err
    _, out, _ = call(capsys, "predict", run, "--input", table)
    assert {json.loads(line)["label"] for line in out.splitlines()} <= {"negative", "positive"}
    code, out, err = call(capsys, "evaluate", run)
    assert code == 0 and "negative" in out, err
    assert cli.main(["export", str(run), "--out", str(tmp_path / "exported")]) == 0
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}


def test_evaluate_without_the_dev_file_names_the_option(tuned, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("dev = ", 'dev = "gone.tsv" # '))
    code, _, err = call(capsys, "evaluate", run)
    assert code == 3 and "gone.tsv: no such file" in err and "--input FILE" in err


def test_small_mistakes_of_a_first_classifier(data, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = command(data, "classification", run, "--init", data / "model", "--max-steps", 1)
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "the dev examples are the training examples: scores say nothing" in out
    (tmp_path / "lines.txt").write_text("the file is found\n\nthe value is not\n")
    code, out, err = call(capsys, "predict", run, "--input", tmp_path / "lines.txt")
    assert code == 0, err
    assert [json.loads(line)["input"] for line in out.splitlines()] == [
        "the file is found", "the value is not",
    ]  # fmt: skip
    code, _, err = call(capsys, "predict", run, "the file\tthe value")
    assert code == 3 and "2 parts where classification takes 1" in err
    code, _, err = call(capsys, "fill-mask", run, "the [MASK] is found")
    assert code == 4 and "name a pretrained run" in err
