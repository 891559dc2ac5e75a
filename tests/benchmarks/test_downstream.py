"""Splits without a passage on two sides; paired scores that are kept; one true run."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

import pytest

from tests import tiny_models

WORDS = tiny_models.SENTENCES


@pytest.fixture(scope="module")
def splits(benchmark):
    return benchmark("splits")


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("downstream")


def passages(name: str, records: list) -> set[str]:
    if name == "race":
        return {" ".join(passage["article"].split()) for passage in records}
    return {" ".join(p["context"].split()) for article in records for p in article["paragraphs"]}


def together(name: str, parts: dict[str, list]) -> set[str]:
    """Passages that stand on two sides."""
    train, dev, test = (passages(name, parts[part]) for part in ("train", "dev", "test"))
    assert train and dev and test
    return train & dev | train & test | dev & test


@pytest.mark.parametrize("name", ["squad", "squad-answered", "race"])
def test_no_passage_is_on_two_sides(splits, shared, name):
    assert not together(name, splits.SPLITS[name](shared / "data"))


def test_articles_are_ten_two_and_four(splits, shared):
    parts = splits.SPLITS["squad"](shared / "data")
    titles = [[article["title"] for article in parts[part]] for part in splits.PARTS]
    assert [len(part) for part in titles] == [10, 2, 4] and len(set(sum(titles, []))) == 16


def test_a_passage_that_stands_twice_stays_on_one_side(splits):
    made = [{"id": f"high{i}.txt", "article": f"passage {i}"} for i in range(200)]
    again = [{"id": f"middle{i}.txt", "article": f"passage\n  {i} "} for i in range(200)]
    parts = splits.race_parts(made + again)
    assert not together("race", parts)
    assert sum(len(part) for part in parts.values()) == 400
    assert 0.6 < len(parts["train"]) / 400 < 0.8 and 0.03 < len(parts["dev"]) / 400 < 0.17


def test_questions_without_answer_are_left_out(splits):
    asked = [{"answers": []}, {"answers": [{}]}]
    articles = [{"title": "t", "paragraphs": [{"context": "c", "qas": asked[:n]} for n in (1, 2)]}]
    [article] = splits.answered(articles)
    assert [len(p["qas"]) for p in article["paragraphs"]] == [1]


def test_equal_first_sentences_are_all_train_or_all_dev(splits):
    records = [{"sentence1": f"a  {i // 5}", "sentence2": str(i)} for i in range(1000)]
    train, dev = splits.dev_of(records)
    assert len(train) + len(dev) == 1000 and 50 < len(dev) < 150
    assert not {r["sentence1"] for r in train} & {r["sentence1"] for r in dev}


@pytest.fixture
def bench(program, tmp_path: Path):
    """Ten sentences of two classes, and a tiny model to start from."""
    folder = tmp_path / "data/glue/SST-2"
    folder.mkdir(parents=True)
    lines = [f"{text} {i}\t{int('not' in text)}\n" for i in range(5) for text in WORDS[:4]]
    for part in ("train", "dev", "test"):
        (folder / f"{part}.tsv").write_text("".join(lines))
    init = tiny_models.directory(tmp_path)
    return program.Bench(
        argparse.Namespace(
            data=tmp_path / "data", init=[init], out=str(tmp_path / "out"), seeds=3, steps=2,
            part="test", most=None,
        )
    )  # fmt: skip


def test_scores_are_paired_and_kept(program, bench, monkeypatch):
    asked = []

    @contextlib.contextmanager
    def tuned(config, paths, start, folder, given, max_steps):
        yield config, start, Path(paths["train"]).read_text()

    def score(model, path, most):
        config, start, text = model
        asked.append((config, Path(start).name, Path(path).stem.split("-")[-1], text))
        return config.seed + 5 * ("scratch" not in start)

    monkeypatch.setattr(program.tuning, "tuned", tuned)
    monkeypatch.setattr(program.tuning, "score", score)
    lines = list(program.report(bench, "sst-2"))
    assert [part for _, _, part, _ in asked] == ["test"] * 6
    assert {start.rsplit("-", 1)[-1] for _, start, *_ in asked} == {"0", "1", "2", "model"}
    assert "majority class 75.00" in lines[0]
    assert lines[1].split()[0] == "scratch" and "+5.00 +- 0.00" in lines[2]
    again = program.Bench(bench.options)
    assert list(program.report(again, "sst-2")) == lines and len(asked) == 6
    sample = again.scores("sst-2", bench.options.init[0], bench.options.init[0], 4)
    assert len(sample) == 3
    samples = [text for *_, text in asked[-3:]]
    assert {text.count("\n") for text in samples} == {4} and len(set(samples)) == 3
    assert program.draw([4, 20], {"scratch": [[1.0, 2.0], [3.0, 4.0]]}).startswith(b"\x89PNG")


@pytest.mark.thorough
def test_one_true_run(program, bench):
    init = bench.options.init[0]
    value = bench.score("sst-2", program.SCRATCH, init, seed=0)
    assert 0 <= value <= 100
    [key] = json.loads((Path(bench.options.out) / "scores.json").read_text())
    assert key.startswith("sst-2 scratch ") and not (Path(bench.options.out) / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("depth", ["--depths", "1", "2"], ["  1 layers", "  2 layers", "exit at  0.6"]),
        ("distillation", [], ["teacher ", "one pass", "half width"]),
        ("augmentation", ["--few", "8", "--copies", "1"], ["from 8 examples"]),
    ],
)
def test_programs_of_one_model(benchmark, bench, name, given, told, monkeypatch, capsys):
    """Each runs to its end, says what it found, and computes nothing again."""
    run, out = benchmark(name), bench.options.out
    steps = ["--epochs", "1"] if name == "augmentation" else ["--steps", "2"]
    monkeypatch.setattr(
        sys, "argv",
        [name, str(bench.options.data), "--init", bench.options.init[0], "--out", out,
         "--seeds", "2", *steps, *given],
    )  # fmt: skip
    run.main()
    said = capsys.readouterr().out
    assert all(part in said for part in told)
    monkeypatch.setattr(run.tuning, "tuned", None)
    run.main()
    assert capsys.readouterr().out == said
