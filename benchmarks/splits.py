"""The data of thirteen tasks split into train, dev and test, so that no passage is on two sides.

`split(NAME, DATA, OUT)` reads files below DATA and writes OUT/NAME-train, -dev and -test in a form
that `albert-jax finetune` reads without further options. The files: glue/SST-2/{train,dev,test}.tsv
(sentence, label), glue/CoLA/{in_domain_train,in_domain_dev,out_of_domain_dev}.tsv (as published),
glue/RTE/{train,dev}.tsv, glue/MRPC/msr_paraphrase_{train,test}.txt,
squad/squad-v2.0-dev-16articles.json, race/*.jsonl (a passage per line),
tasks/{subj,mr,sst5,agnews}/{train,dev,test}.tsv (label, sentence),
tasks/ud-ewt/{train,dev,test}.tsv (a word and its tag per line),
tasks/conll2003/eng.{train,testa,testb}.

Test sets are the published ones where they have labels (SST-2, MRPC), else the published dev set
(RTE) or its half from other sources (CoLA); then dev is a tenth of train, by a hash of the first
sentence. SQuAD is split by a hash of the article's title, RACE by a hash of the passage's id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from albert_jax import files
from albert_jax.data.sources import tables

PARTS = ("train", "dev", "test")
Parts = dict[str, list[Any]]
"""What stands on each side."""
SQUAD_ARTICLES = (10, 2, 4)
RACE_SHARES = (0.7, 0.1)
"""Shares of train and dev; the rest is the test."""
DEV_SHARE = 0.1


def fold(text: str) -> str:
    """A text whose runs of white space are single spaces."""
    return " ".join(text.split())


def place(key: str) -> float:
    """Where the hash of a key lies between 0 and 1."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def squad_parts(squad: dict[str, Any]) -> Parts:
    """Articles of a SQuAD file by the hash of their title: 10, 2 and 4 of 16."""
    articles = sorted(squad["data"], key=lambda article: place(article["title"]))
    found, begin = {}, 0
    for part, count in zip(PARTS, SQUAD_ARTICLES, strict=True):
        found[part], begin = articles[begin : begin + count], begin + count
    if begin != len(articles):
        raise SystemExit(f"{len(articles)} articles where {begin} are expected")
    return found


def answered(articles: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same articles with the questions that have an answer."""
    found = []
    for article in articles:
        paragraphs = [
            {**paragraph, "qas": [asked for asked in paragraph["qas"] if asked["answers"]]}
            for paragraph in article["paragraphs"]
        ]
        found.append({**article, "paragraphs": [p for p in paragraphs if p["qas"]]})
    return found


def race_parts(passages: Sequence[dict[str, Any]]) -> Parts:
    """Passages of RACE by the hash of their id; equal texts go with the first id of theirs."""
    first: dict[str, str] = {}
    for passage in sorted(passages, key=lambda passage: passage["id"]):
        first.setdefault(fold(passage["article"]), passage["id"])
    found: Parts = {part: [] for part in PARTS}
    train, dev = RACE_SHARES
    for passage in passages:
        where = place(first[fold(passage["article"])])
        found["train" if where < train else "dev" if where < train + dev else "test"].append(
            passage
        )
    return found


def dev_of(train: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(the rest, a tenth) of training records, equal first sentences on one side."""
    first = next(iter(train[0]))
    kept: tuple[list, list] = ([], [])
    for record in train:
        kept[place(fold(record[first])) < DEV_SHARE].append(record)
    return kept


def _table(path: Path, columns: Sequence[str], names: dict[str, str]) -> list[dict[str, str]]:
    """Records of a table with the columns that `names` renames, in that order."""
    return [
        {new: str(record.fields[old]) for old, new in names.items()}
        for record in tables.read_records(path, columns)
    ]


def _sst2(data: Path) -> Parts:
    columns = ("sentence", "label")
    names = {name: name for name in columns}
    return {part: _table(data / f"glue/SST-2/{part}.tsv", columns, names) for part in PARTS}


def _cola(data: Path) -> Parts:
    columns, names = (
        ("source", "label", "mark", "sentence"),
        {"sentence": "sentence", "label": "label"},
    )
    own = {"train": "in_domain_train", "dev": "in_domain_dev", "test": "out_of_domain_dev"}
    return {part: _table(data / f"glue/CoLA/{own[part]}.tsv", columns, names) for part in PARTS}


def _rte(data: Path) -> Parts:
    names = {name: name for name in ("sentence1", "sentence2", "label")}
    train, dev = dev_of(_table(data / "glue/RTE/train.tsv", (), names))
    return {"train": train, "dev": dev, "test": _table(data / "glue/RTE/dev.tsv", (), names)}


def _mrpc(data: Path) -> Parts:
    names = {"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"}
    train, dev = dev_of(_table(data / "glue/MRPC/msr_paraphrase_train.txt", (), names))
    test = _table(data / "glue/MRPC/msr_paraphrase_test.txt", (), names)
    return {"train": train, "dev": dev, "test": test}


def _squad(data: Path) -> Parts:
    return squad_parts(json.loads((data / "squad/squad-v2.0-dev-16articles.json").read_bytes()))


def _squad_answered(data: Path) -> Parts:
    return {part: answered(articles) for part, articles in _squad(data).items()}


def _sentences(name: str, data: Path) -> Parts:
    names = {name: name for name in ("sentence", "label")}
    return {part: _table(data / f"tasks/{name}/{part}.tsv", (), names) for part in PARTS}


def _tagged(paths: dict[str, Path]) -> Parts:
    """Lines of files with a word a line, which stay as they are."""
    return {part: path.read_text(encoding="utf-8").split("\n") for part, path in paths.items()}


def _ud_ewt(data: Path) -> Parts:
    return _tagged({part: data / f"tasks/ud-ewt/{part}.tsv" for part in PARTS})


def _conll2003(data: Path) -> Parts:
    own = {"train": "train", "dev": "testa", "test": "testb"}
    return _tagged({part: data / f"tasks/conll2003/eng.{own[part]}" for part in PARTS})


def _race(data: Path) -> Parts:
    lines = [
        line
        for path in sorted((data / "race").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    return race_parts([json.loads(line) for line in lines])


SPLITS: dict[str, Callable[[Path], Parts]] = {
    "sst-2": _sst2,
    "cola": _cola,
    "rte": _rte,
    "mrpc": _mrpc,
    "squad": _squad,
    "squad-answered": _squad_answered,
    "race": _race,
    **{name: partial(_sentences, name) for name in ("subj", "mr", "sst5", "agnews")},
    "ud-ewt": _ud_ewt,
    "conll2003": _conll2003,
}
"""Name to the parts of the data below a folder."""


def split(name: str, data: Path, out: Path) -> dict[str, str]:
    """Writes the parts of a task; returns the path of each."""
    found = {}
    for part, records in SPLITS[name](data).items():
        found[part] = write(name, records, out / f"{name}-{part}")
    return found


def write(name: str, records: Sequence[Any], stem: Path) -> str:
    """Writes one part of a task as STEM.json or STEM.jsonl; returns the path."""
    if name.startswith("squad"):
        path, text = f"{stem}.json", json.dumps({"data": records}, ensure_ascii=False)
    elif name in ("ud-ewt", "conll2003"):
        path, text = f"{stem}.conll", "\n".join(records)
    else:
        path = f"{stem}.jsonl"
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    files.write(path, text.encode())
    return path
