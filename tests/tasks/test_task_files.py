"""Readers: each form is read, each fault is one line with its place."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from albert_jax.data.sources import hub_datasets, tables
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks import registry
from albert_jax.tasks.classification import Classification, ClassificationConfig
from albert_jax.tasks.support import choice_files, columns
from albert_jax.tasks.support.choice_files import ChoiceExample
from albert_jax.tasks.support.columns import TableConfig, TextExample
from albert_jax.tasks.token_classification import (
    TokenClassification,
    TokenClassificationConfig,
    read_conll,
)


def put(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def read(path: str, *names: str, **settings) -> list[TextExample]:
    config = TableConfig(columns=names, **settings)
    return columns.read_texts(
        path, config, columns.LABEL_NAMES + columns.SCORE_NAMES, labelled=True
    )


def read_all(path: str) -> list:
    return [record.fields["sentence"] for record in tables.read_records(path)]


def read_task(path: str, task: str, labelled: bool = True, **settings) -> list:
    config = registry.get(task).config_class(**settings)
    return registry.create(config).read_examples(path, labelled=labelled)


def complains(path: str, *parts: str, call=read, kind=DataError, **options) -> None:
    with pytest.raises(kind) as caught:
        call(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    assert caught.value.exit_code == (3 if kind is DataError else 2)


def test_header_names_columns_and_tabs_are_never_quoted(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", '\ufeffindex\tsentence1\tsentence2\tlabel\r\n0\t"x\ty z\tyes\r\n')
    (example,) = read(path)
    assert example.texts == ('"x', "y z")
    assert example.label == "yes"
    assert example.where == f"{path}:2"


def test_columns_name_a_file_without_header(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", '"one, two",second,2.5\n\n"line\nbreak",b,1\n')
    first, second = read(path, "sentence1", "sentence2", "score")
    assert (first.texts, first.label) == (("one, two", "second"), "2.5")
    assert second.texts == ("line\nbreak", "b")
    assert second.where.endswith(":3")
    cola = put(tmp_path, "cola.tsv", "gj04\t1\t\tIt stands.\n")
    assert read(cola, "-", "label", "-", "sentence")[0].texts == ("It stands.",)


def test_columns_that_are_the_header_are_not_data(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "score,sentence1,sentence2\n3,a,b\n")
    (example,) = read(path, "sentence1", "sentence2", "score")
    assert (example.texts, example.label) == (("a", "b"), "3")


def test_a_score_is_the_score_where_a_label_stands_beside_it(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", "sentence1\tsentence2\tlabel\tscore\na\tb\t1\t0.25\n")
    for task, label in (
        ("regression", "0.25"),
        ("sentence-embedding", "0.25"),
        ("classification", "1"),
    ):
        (example,) = read_task(path, task)
        assert example.label == label


def test_columns_that_say_nothing_or_one_thing_twice(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", "sentence\tlabel\tlabel\na\t0\t1\n")
    complains(path, "a.tsv:1", "'label' appears twice")
    assert [x.label for x in read(path, "sentence", "-", "label")] == ["1"]
    (example,) = read(put(tmp_path, "d.csv", "id,sentence,label,id,,\n1,a,0,2,,\n"))
    assert (example.texts, example.label) == (("a",), "0")
    several = put(tmp_path, "e.tsv", "a\t1\t0.5\n")
    assert read(several, "sentence", "label", "score")[0].texts == ("a",)
    path = put(tmp_path, "b.tsv", "x\t1\n")
    with pytest.raises(DataError, match="--columns: column 't' appears twice"):
        read(path, "t", "t")
    with pytest.raises(ConfigError, match="ignores every column"):
        read(path, "-", "-")
    complains(put(tmp_path, "c.tsv", "Text\tLabel\nx\t1\n"), "Text, Label", "--columns")


def test_several_labels_of_one_example_are_not_offered(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"sentence": "x", "label": ["joy", "hope"]}\n')
    complains(path, "a.jsonl:1", "label is a list", "not offered")


def test_an_empty_row_is_no_row_less(tmp_path: Path) -> None:
    """Predictions stand in the order of the rows: none may be dropped without a word."""
    for name, empty in (("a.tsv", "\t"), ("b.csv", ",")):
        text = f"sentence{empty}label\nx{empty}1\n{empty}\ny{empty}0\n"
        complains(put(tmp_path, name, text), f"{name}:3", "sentence is empty")
    for name in ("c.tsv", "d.csv"):
        blank = put(tmp_path, name, "sentence\nx\n\ny\n\n\n")
        with pytest.raises(DataError, match=f"{name}:3: sentence is empty"):
            tables.read_records(blank)
        assert len(tables.read_records(put(tmp_path, name, "sentence\nx\ny\n\n\n"))) == 2
        with pytest.raises(DataError, match=f"{name}:1: sentence is empty"):
            tables.read_records(put(tmp_path, name, "\nx\ny\n"), ("sentence",))
    quoted = read_all(put(tmp_path, "f.csv", ',\nsentence\nx\n""\n'))
    assert quoted == ["x", ""]
    assert len(read(put(tmp_path, "e.tsv", "sentence\tlabel\nx\t1\n\ny\t0\n"))) == 2


@pytest.mark.parametrize("text", ["1e300", "-1e38", "1_5", "nan", ""])
def test_what_is_no_score(text: str) -> None:
    assert columns.parse_score("a:1", "-1e9") == -1e9
    with pytest.raises(DataError, match="a:1: score"):
        columns.parse_score("a:1", text)


@pytest.mark.parametrize("task", ["classification", "multiple-choice", "squad-v1", "generation"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"label": ' + "7" * 5000 + "}"])
def test_json_that_python_refuses(tmp_path: Path, task: str, text: str) -> None:
    path = put(tmp_path, "a.jsonl", text + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl"):
        read_task(path, task)


@pytest.mark.parametrize(
    ("task", "fields", "part"),
    [
        ("generation", {"source": [{"role": "user"}], "target": "x"}, "a turn"),
        ("generation", {"source": ["hi", None], "target": "x"}, "a turn"),
        ("generation", {"source": "a", "target": ["x"]}, "target is \"['x']\", not a text"),
        ("classification", {"sentence": ["a"], "label": 1}, "sentence is \"['a']\", not a text"),
        ("multiple-choice", {"context": "c", "question": {"stem": "q"}, "choices": ["a", "b"], "label": 0},
         "the question is"),
        ("multiple-choice", {"context": "c", "choices": [1, 2], "label": 0}, "a choice is '1'"),
        ("multiple-choice", {"context": "c", "choices": ["a", "b"], "label": "1" + "0" * 12}, "answer"),
    ],
)  # fmt: skip
def test_what_is_no_text(tmp_path: Path, task: str, fields: dict, part: str) -> None:
    path = put(tmp_path, "a.jsonl", json.dumps(fields))
    with pytest.raises(DataError, match=r"a\.jsonl:1: ") as caught:
        read_task(path, task)
    assert part in str(caught.value)


def test_json_lines(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "a\u2028b", "label": 1}\n')
    (example,) = read(path)
    assert (example.texts, example.label) == (("a\u2028b",), "1")


def test_ends_of_lines_that_are_none_of_csvs_and_long_fields(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0bd"
    path = put(tmp_path, "a.csv", f'text,label\r\n{odd},1\r\n"x\ny",0\r\n{"z" * 200_000},1\r\n')
    found = read(path)
    assert [example.texts[0] for example in found[:2]] == [odd, "x\ny"]
    assert len(found[2].texts[0]) == 200_000 and len(found) == 3
    complains(put(tmp_path, "b.csv", 'text,label\r\na,1\r\nb,"1\r\n'), "b.csv:3", "broken CSV")


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", '{"text": "a \\ud83d b", "label": 1}\n')
    complains(path, "a.jsonl:1", "surrogate")
    whole = put(tmp_path, "b.jsonl", '{"text": "a \\ud83d\\ude00", "label": 1}\n')
    assert read(whole)[0].texts == ("a \U0001f600",)


def test_answers_are_not_read_where_none_are_wanted(tmp_path: Path) -> None:
    """Published test files hold -1, null or nothing in their place."""

    def unread(task: str, name: str, text: str):
        path = put(tmp_path, name, text)
        with pytest.raises(DataError):
            read_task(path, task)
        (example,) = read_task(path, task, labelled=False)
        return example

    assert unread("classification", "a.tsv", "sentence\tlabel\nx\t\n").label is None
    assert unread("regression", "b.jsonl", '{"text": "x", "score": null}').label is None
    choice = {"context": "c", "choices": ["x", "y"], "label": -1}
    assert unread("multiple-choice", "c.jsonl", json.dumps(choice)).label is None
    assert unread("multiple-choice", "d.jsonl", race(questions=["q"], options=[["a", "b"]],
                                            answers=["Z"])).label is None  # fmt: skip
    said = unread("generation", "e.jsonl", '{"source": "x", "target": ""}')
    assert (said.source, said.target) == (("x",), None)
    asked = {"id": "i", "question": "q", "answers": [{"text": "no", "answer_start": 0}]}
    paragraphs = [{"context": "c", "qas": [asked]}]
    assert not unread(
        "squad-v1", "f.json", json.dumps({"data": [{"paragraphs": paragraphs}]})
    ).answers


def test_faults_of_tables(tmp_path: Path) -> None:
    complains(str(tmp_path / "none.tsv"), "none.tsv", "no such file")
    complains(put(tmp_path, "a.xml", "x"), "a.xml", "unknown format")
    complains(put(tmp_path, "s.csv", "text;label\nx;1\n"), "s.csv:1", "columns with commas")
    complains(put(tmp_path, "e.tsv", ""), "e.tsv", "no records")
    complains(put(tmp_path, "b.tsv", "sentence\tlabel\nx\t1\nonly\n"), "b.tsv:3", "1 columns")
    complains(put(tmp_path, "c.tsv", "sentence\tlabel\n \t1\n"), "c.tsv:2", "sentence is empty")
    complains(put(tmp_path, "d.csv", 'sentence,label\n"x,1\n'), "d.csv:2", "broken CSV")
    complains(put(tmp_path, "f.jsonl", '{"text": "x"}\n{"text"\n'), "f.jsonl:2", "not JSON")
    complains(put(tmp_path, "g.tsv", "foo\tbar\nx\t1\n"), "g.tsv:2", "no column for the label")
    bad = tmp_path / "h.tsv"
    bad.write_bytes(b"sentence\tlabel\nok\t1\n\xff\t0\n")
    complains(str(bad), "h.tsv:3", "not UTF-8")
    header = put(tmp_path, "i.csv", "sentence1,sentence2,label\na,b,1\n")
    with pytest.raises(DataError, match=r"i\.csv:1: no column 'score'"):
        tables.read_records(header, ("sentence1", "sentence2", "score"))
    with pytest.raises(DataError, match="no column 'premise'"):
        read(header, text_columns=("premise",))
    three = put(tmp_path, "j.csv", "a,b,c,1\n")
    with pytest.raises(ConfigError, match="at most two"):
        read(three, "x", "y", "z", "label")


def test_labels_are_ordered_and_strict() -> None:
    examples = [TextExample(f"f:{i}", ("x",), label) for i, label in enumerate("10 2 b a".split())]
    assert columns.label_set(examples) == ("2", "10", "a", "b")
    with pytest.raises(DataError, match=r"^f:7: label 'c' is not one of a, b"):
        columns.label_index("f:7", "c", ("a", "b"))
    for text in ("much", "nan", "inf", None):
        with pytest.raises(DataError, match="f:7: score"):
            columns.parse_score("f:7", text)


def test_one_label_in_training_is_refused() -> None:
    only = [TextExample("f:1", ("x",), "a")]
    with pytest.raises(DataError, match="at least two"):
        Classification(ClassificationConfig()).resolve(only, only)


def race(**changes) -> str:
    passage = {
        "id": "middle7.txt",
        "article": "A cat sat.",
        "questions": ["The  _  sat.", "Who sat?"],
        "options": [["cat", "dog"], ["a cat", "a dog"]],
        "answers": ["A", "B"],
    }
    return json.dumps({**passage, **changes})


def test_race_fills_the_blank_or_appends(tmp_path: Path) -> None:
    path = put(tmp_path, "r.jsonl", race() + "\n" + race(id="high1.txt") + "\n")
    found = read_task(path, "multiple-choice", max_choices=2)
    assert [x.group for x in found] == ["middle", "middle", "high", "high"]
    assert found[0].endings == ("The cat sat.", "The dog sat.")
    assert found[1].endings == ("Who sat? a cat", "Who sat? a dog")
    assert [x.label for x in found[:2]] == [0, 1]
    folder = tmp_path / "RACE"
    folder.mkdir()
    put(folder, "1.txt", race())
    assert len(read_task(str(folder), "multiple-choice")) == 2
    put(folder, "swag.csv", "sent1,sent2,ending0,ending1,label\nHe sat.,He,ran,slept,1\n")
    assert len(read_task(str(folder), "multiple-choice")) == 3
    assert len(read_task(str(folder / "1.txt"), "multiple-choice")) == 2


def test_faults_of_choices(tmp_path: Path) -> None:
    def reader(path):
        return read_task(path, "multiple-choice")

    complains(
        put(tmp_path, "a.jsonl", race(answers=["C", "A"])),
        "a.jsonl:1 question 1",
        "'C'",
        call=reader,
    )
    five = race(options=[list("abcde"), ["x", "y"]])
    complains(put(tmp_path, "b.jsonl", five), "5 choices", "4 configured", call=reader)
    complains(put(tmp_path, "c.jsonl", race(answers=["A"])), "differ in number", call=reader)
    complains(put(tmp_path, "d.jsonl", race(article=" ")), "context is empty", call=reader)
    complains(put(tmp_path, "e.jsonl", race() + "\n{\n"), "e.jsonl:2", call=reader)
    complains(put(tmp_path, "f.jsonl", race(questions=[None, "q"])), "question 1", call=reader)
    complains(put(tmp_path, "g.jsonl", race(options={"A": []})), "options", "a list", call=reader)


def test_the_level_is_the_ids_before_the_paths(tmp_path: Path) -> None:
    def level(folder: str, **changes) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = put(tmp_path / folder, "x.jsonl", race(**changes))
        return read_task(path, "multiple-choice")[0].group

    assert level("middle-and-high") == "middle"
    assert level("middle-and-high", id="high12.txt") == "high"
    assert level("middle-and-high", id="12") == ""
    assert level("high", id="12") == "high"


def test_general_and_swag_choices(tmp_path: Path) -> None:
    general = put(
        tmp_path,
        "a.jsonl",
        json.dumps({"context": "c", "question": "q _", "choices": ["x", "y"], "label": "B"}),
    )
    (example,) = read_task(general, "multiple-choice")
    assert (example.endings, example.label) == (("q x", "q y"), 1)
    swag = put(tmp_path, "b.csv", "sent1,sent2,ending0,ending1,label\nHe sat.,He,ran,slept,1\n")
    (example,) = read_task(swag, "multiple-choice")
    assert (example.context, example.endings, example.label) == (
        "He sat.", ("He ran", "He slept"), 1)  # fmt: skip


def test_gaps_of_general_choices(tmp_path: Path) -> None:
    def endings(question: object) -> tuple[str, ...]:
        record = {"context": "c", "question": question, "choices": ["x\\1", "y"], "label": 0}
        path = put(tmp_path, "a.jsonl", json.dumps(record))
        return read_task(path, "multiple-choice", max_choices=2)[0].endings

    assert endings("It is ____ .") == ("It is x\\1 .", "It is y .")
    assert endings("snake_case is") == ("snake_case is x\\1", "snake_case is y")
    assert endings(None) == ("x\\1", "y")


def test_conll_comments_and_words(tmp_path: Path) -> None:
    def words(text: str, **options) -> list[tuple[str, ...]]:
        return [s.words for s in read_conll(put(tmp_path, "a", text), **options)]

    assert words("# O\n1 O\nfan O\n") == [("#", "1", "fan")]
    assert words("# sent_id = 3\n1\tAnna\tO\n\n# x\n1\tBob\tO\n", word_column=1) == [
        ("Anna",), ("Bob",)]  # fmt: skip
    assert words("Anna\nsat\n", tagged=False, tag_column=3) == [("Anna", "sat")]


def test_conll(tmp_path: Path) -> None:
    path = put(tmp_path, "a.conll", "-DOCSTART- -X- O\n\nAnna NN B-PER\nsat VB O\n\nHere RB O\n")
    first, second = read_conll(path)
    assert (first.words, first.tags) == (("Anna", "sat"), ("B-PER", "O"))
    assert second.where == f"{path}:6"
    task = TokenClassification(TokenClassificationConfig())
    config = task.resolve([first, second], [second]).config
    assert (config.labels, config.metrics) == (("O", "B-PER"), ("f1", "accuracy"))
    words = put(tmp_path, "w.txt", "Anna\nsat\n")
    assert read_conll(words, tagged=False)[0].tags is None
    reader = read_conll
    complains(put(tmp_path, "b.conll", "a O\nb\n"), "b.conll:2", "1 columns", call=reader)
    complains(put(tmp_path, "c.conll", "a\n"), "c.conll:1", call=reader)
    complains(put(tmp_path, "d.conll", "\n\n"), "no sentences", call=reader)
    beyond = put(tmp_path, "e.conll", "a O\n")
    complains(beyond, "e.conll:1", "no column 3", call=reader, tag_column=3)
    complains(beyond, "e.conll:1", "no column -3", call=reader, word_column=-3, tagged=False)
    for name in ("a.csv", "a.JSONL", "a.json"):
        complains(put(tmp_path, name, "Anna,B\nsat,O\n"), name, "CoNLL", call=reader, tagged=False)


def test_records_of_hub_datasets() -> None:
    assert hub_datasets.is_hub_dataset("tfds:glue/sst2:train")
    assert not hub_datasets.is_hub_dataset("train.tsv")
    with pytest.raises(ConfigError, match="tfds:NAME"):
        hub_datasets.load_records("tfds:")

    def choices(fields: dict) -> ChoiceExample:
        record = tables.Record("hf:some/dataset:train record 0", fields)
        (example,) = choice_files.from_record(record, 4, True)
        return example

    fields = {"article": "A cat.", "question": "Who?", "options": ["a", "b"], "answer": "B",
              "example_id": "high3.txt"}  # fmt: skip
    example = choices(fields)
    assert (example.label, example.group) == (1, "high")
    fields = {"sent1": "He sat.", "sent2": "He", "ending0": "ran", "ending1": "slept", "label": "1"}
    example = choices(fields)
    assert (example.endings, example.label) == (("He ran", "He slept"), 1)


@pytest.mark.parametrize(
    ("place", "known", "asked"),
    [
        ("hf:imdb:train[:100]", {"imdb"}, [("imdb", None, "train[:100]")]),
        ("hf:rajpurkar/squad:validation", {"rajpurkar/squad"},
         [("rajpurkar/squad", None, "validation")]),
        ("hf:glue/sst2:test", {"glue"}, [("glue/sst2", None, "test"), ("glue", "sst2", "test")]),
        ("hf:nyu-mll/glue/sst2:test", {"nyu-mll/glue"},
         [("nyu-mll/glue/sst2", None, "test"), ("nyu-mll/glue", "sst2", "test")]),
    ],
)  # fmt: skip
def test_names_on_the_hub(place, known, asked, monkeypatch) -> None:
    calls = []

    class Rows(list):
        features: ClassVar = {}

    def load_dataset(path, config, split):
        calls.append((path, config, split))
        if path not in known:
            raise ValueError("none of that name")
        return Rows([{"text": "x"}])

    package = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", package)
    (record,) = hub_datasets.load_records(place)
    assert calls == asked and record.fields == {"text": "x"}
    with pytest.raises(DataError, match="none of that name"):
        hub_datasets.load_records("hf:absent/dataset:train")


def test_records_of_hubs_are_plain(monkeypatch) -> None:
    class Rows(list):
        features: ClassVar = {
            "label": types.SimpleNamespace(names=["no", "yes"]),
            "tags": types.SimpleNamespace(names=["O", "B"]),
        }

    row = {
        "label": np.int64(1), "tags": np.array([0, 1]), "text": b"x", "turns": np.array([b"a", b"b"]),
        "answers": {"text": [b"cat"], "answer_start": np.array([4])},
    }  # fmt: skip
    rows = Rows([row, {"label": -1, "tags": [], "text": "", "turns": []}, {"label": None}])
    package = types.SimpleNamespace(load_dataset=lambda *_, split: rows)
    monkeypatch.setitem(sys.modules, "datasets", package)
    first, second, third = hub_datasets.load_records("hf:one:train")
    assert first.fields == {
        "label": "yes", "tags": ["O", "B"], "text": "x", "turns": ["a", "b"],
        "answers": {"text": ["cat"], "answer_start": [4]},
    }  # fmt: skip
    assert second.fields["label"] is None and third.fields["label"] is None
    rows[:] = [{"text": b"\xff"}]
    with pytest.raises(DataError, match="record 0: invalid UTF-8"):
        hub_datasets.load_records("hf:one:train")


@pytest.mark.parametrize(
    ("name", "header", "count"),
    [
        ("glue/RTE/dev.tsv", (), 277),
        ("glue/SST-2/dev.tsv", ("sentence", "label"), 872),
        ("glue/CoLA/in_domain_dev.tsv", ("-", "label", "-", "sentence"), 527),
        ("glue/MRPC/msr_paraphrase_test.txt", (), 1725),
    ],
)
def test_real_tables(shared: Path, name: str, header: tuple, count: int) -> None:
    found = read(str(shared / "data" / name), *header)
    assert len(found) == count
    assert len(columns.label_set(found)) == 2


def test_real_choices(shared: Path) -> None:
    path = str(shared / "data/race/train-sample-middle.jsonl")
    assert len(read_task(path, "multiple-choice")) == 798
