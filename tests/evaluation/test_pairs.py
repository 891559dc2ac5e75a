"""Minimal pairs: what a file must hold, ties, means over sets and their intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from albert_jax import cli
from albert_jax.errors import DataError
from albert_jax.evaluation import minimal_pairs
from albert_jax.evaluation.minimal_pairs import MinimalPair, accuracies
from tests import tiny_models


def blimp(good="the dogs are", bad="the dogs is", uid="s", term="agreement", field="syntax"):
    """A line of BLiMP."""
    names = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    return dict(zip(names, (good, bad, uid, term, field), strict=True))


def put(folder: Path, *lines: dict) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_files_of_pairs(tmp_path: Path) -> None:
    (pair,) = minimal_pairs.read(put(tmp_path, blimp("a ", "b")))
    assert pair == MinimalPair(f"{tmp_path}/pairs.jsonl:1", "a", "b", "s", "agreement", "syntax")
    own = {"sentence_good": "a", "sentence_bad": "b"}
    for line, group in ((own, ""), (own | {"set": "x"}, "x"), (own | {"UID": ""}, "")):
        (pair,) = minimal_pairs.read(put(tmp_path, line))
        assert (pair.good, pair.bad, pair.group, pair.term, pair.field) == ("a", "b", group, "", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"sentence_bad": "b"}, "no column 'sentence_good'"),
        ({"sentence_good": "a"}, "no column 'sentence_bad'"),
        (blimp(good=" "), "sentence_good is empty"),
        (blimp(bad=None), "sentence_bad is empty"),
        (blimp(bad=["b"]), "sentence_bad is .* not a text"),
        (blimp(good=5), "sentence_good is 5, not a text"),
        (blimp(uid={"a": 1}), "UID is .* not a text"),
        (blimp(uid=""), "UID is empty"),
        (blimp(uid="all"), "a set named 'all'"),
        ({"sentence_good": "a", "sentence_bad": "b"}, "no column 'UID'"),
        ({"sentence_good": "a", "sentence_bad": "b", "UID": "s"}, "no column 'linguistics_term'"),
    ],
)
def test_lines_that_are_no_pairs_are_named(line: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"pairs.jsonl:2: .*{words}") as caught:
        minimal_pairs.read(put(tmp_path, blimp(), line))
    assert "\n" not in str(caught.value)


def test_a_table_without_good_sentences_is_no_table_of_sentences(tmp_path, capsys) -> None:
    path = put(tmp_path, {"sentence_bad": "b", "UID": "s"})
    assert cli.main(["score", str(tmp_path), path]) == 3
    assert "pairs.jsonl:1: no column 'sentence_good'" in capsys.readouterr().err


def test_ties_count_half_or_as_wrong() -> None:
    pairs = [MinimalPair(f"f:{i}", "a", "b", "xy"[i % 2]) for i in range(4)]
    good, bad = np.array([-1, -1, -1, -2.0]), np.array([-2, -2, -1, -1.0])
    found = accuracies(pairs, good, bad)
    rows = found["whole"] | found["sets"]
    assert {name: row.accuracy.value for name, row in rows.items()} == {
        "mean over sets": 0.625, "all": 0.625, "x": 0.75, "y": 0.5
    }  # fmt: skip
    assert {name: row.ties_wrong.value for name, row in found["sets"].items()} == {
        "x": 0.5,
        "y": 0.5,
    }
    assert (found["sets"]["x"].ties, found["sets"]["y"].ties) == (1, 0)
    same = [*pairs, MinimalPair("f:5", "a", "a", "x")]
    ties = accuracies(same, np.append(good, 0), np.append(bad, 0))
    told = minimal_pairs.ties_line(same, ties)
    assert told == "equal scores: 2 of 5 pairs, 1 of them because the sentences are equal"
    assert minimal_pairs.ties_line(pairs[:2], accuracies(pairs[:2], good[:2], bad[:2])) == ""


def test_sets_of_any_size_count_alike() -> None:
    pairs = [MinimalPair("", "a", "b", "large", "t", "f")] * 90
    pairs += [MinimalPair("", "a", "b", "small", "t", "f")] * 10
    pairs += [MinimalPair("", "a", "b", "other", "u", "f")] * 10
    right = np.array([1.0] * 90 + [-1.0] * 10 + [1.0] * 10)
    found = accuracies(pairs, right, np.zeros(110))
    assert found["whole"]["all"].accuracy.value == pytest.approx(100 / 110)
    assert found["whole"]["mean over sets"].accuracy.value == pytest.approx(2 / 3)
    assert found["fields"]["f"].accuracy == found["whole"]["mean over sets"].accuracy
    assert found["terms"]["t"].accuracy.value == 0.5
    assert found["terms"]["u"] == found["sets"]["other"]
    assert list(minimal_pairs.rows_to_draw(found)) == ["mean over sets", "all", "t", "u"]
    headings = [line for line in minimal_pairs.table(found).splitlines() if line.endswith(":")]
    assert headings == ["fields:", "terms:", "sets:"]


def test_scores_of_sets_are_written_and_drawn(tmp_path, capsys) -> None:
    lines = [
        blimp("the file is found", "the file found is", f"s{i}", f"t{i % 2}") for i in range(3)
    ]
    path = put(tmp_path, *lines, blimp("the file", "the file", "s0", "t0"))
    source, out = tiny_models.directory(tmp_path), str(tmp_path / "scores.jsonl")
    assert cli.main(["score", source, path, "--out", out]) == 0
    printed = capsys.readouterr()
    assert "equal scores: 1 of 4 pairs, 1 of them" in printed.out
    assert f"{out}.svg" in printed.err and ">t0, pairs: 3<" in Path(f"{out}.svg").read_text()
    assert len(Path(out).read_text().splitlines()) == 4
    report = json.loads(Path(f"{out}.json").read_text())
    assert report["level"] == 0.95 and report["file"] == path
    assert set(report["sets"]) == {"s0", "s1", "s2"} and report["sets"]["s0"]["ties"] == 1
    mean = report["whole"]["mean over sets"]
    assert mean["low"] < mean["value"] <= mean["high"] and mean["pairs"] == 4
