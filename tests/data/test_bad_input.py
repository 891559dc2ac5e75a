"""What a person can do wrong at the command line: one line that says what and where, and the code
of the table in errors.py."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from albert_jax import cli
from tests.data.made import digest

LINE = "The baker sold warm bread to every child near the old town bridge. It was good. "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a vocabulary and a prepared folder; tests only add to it."""
    folder = tmp_path_factory.mktemp("home")
    text = "\n\n".join(f"{LINE}{word} {i}." for i in range(60) for word in ("One", "Two"))
    (folder / "good.txt").write_text(text, encoding="utf-8")
    for arguments in (
        ["tokenizer", "train", "--text", f"{folder}/good.txt", "--vocab-size", "50",
         "--out", f"{folder}/tokenizer"],
        ["data", "prepare", "--text", f"{folder}/good.txt", "--tokenizer", f"{folder}/tokenizer",
         "--out", f"{folder}/data"],
    ):  # fmt: skip
        assert cli.main(arguments) == 0
    return folder


@pytest.fixture
def refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `data prepare`, expects a code and words in the last line, and no manifest."""

    def run(code: int, words: str, *arguments: str) -> None:
        capsys.readouterr()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        if "--out" not in arguments:
            arguments += ("--out", str(tmp_path / "out"))
        if not {"--tokenizer", "--ids"} & set(arguments):
            arguments += ("--tokenizer", str(home / "tokenizer"))
        found = cli.main(["data", "prepare", *arguments])
        told = capsys.readouterr().err.strip().split("\n")
        assert (found, words in told[-1]) == (code, True), told
        assert "Traceback" not in "".join(told)
        assert not (tmp_path / "out/manifest.json").exists()

    return run


def test_files_of_text(home: Path, tmp_path: Path, refused) -> None:  # noqa: ANN001
    def text(name: str, content: bytes) -> tuple[str, str]:
        (tmp_path / name).write_bytes(content)
        return "--text", str(tmp_path / name)

    good = (home / "good.txt").read_bytes()
    refused(3, "utf.txt: invalid UTF-8 at byte 50", *text("utf.txt", good[:50] + b"\xff" + good))
    refused(3, "nul.txt: control byte 0x00 at byte 70", *text("nul.txt", good[:70] + b"\0" + good))
    refused(3, "empty.txt: is empty", *text("empty.txt", b""))
    refused(3, "is a folder: name its files", "--text", str(tmp_path))
    refused(3, "*.none: no such file", "--text", f"{tmp_path}/*.none")
    refused(3, "cut.txt.gz: compressed data is damaged or ends early",
            *text("cut.txt.gz", gzip.compress(good)[:-60]))  # fmt: skip
    rows = [{"text": LINE}, {"text": LINE * 2}, {"body": LINE}]
    refused(3, "rows.jsonl, line 3: has no text in field 'text'",
            *text("rows.jsonl", "\n".join(map(json.dumps, rows)).encode()))  # fmt: skip
    refused(
        3, "broken.jsonl, line 2: is not a JSON object", *text("broken.jsonl", b'{"text":"a"}\n{')
    )
    refused(3, "2 usable documents", *text("same.txt", f"{LINE}\n\n{LINE}".encode()))


def test_parquet_of_another_schema(tmp_path: Path, refused) -> None:  # noqa: ANN001
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"body": [LINE], "n": [1]}), path)
    refused(3, "a.parquet: has no column 'text', only ['body', 'n']", "--text", path)
    refused(3, "column 'n' holds int64, not text", "--text", path, "--field", "n")


def test_ids(home: Path, tmp_path: Path, refused, capsys) -> None:  # noqa: ANN001
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(4, 30, (50, 40)))
    ids = ("--ids", str(tmp_path / "rows.npy"))
    special = ("--special-ids", "0", "1", "2", "3")
    refused(2, "--ids needs --vocab-size N and --special-ids", *ids)
    refused(2, "--ids needs --vocab-size N and --special-ids", *ids, "--vocab-size", "30",
            *special[:-1])  # fmt: skip
    refused(2, "either --text or --ids", "--text", str(home / "good.txt"), *ids)
    assert cli.main(["data", "prepare", "--text", str(home / "good.txt"), "--out", "x"]) == 2
    assert "--text needs --tokenizer" in capsys.readouterr().err
    refused(3, "outside the 20 of the vocabulary", *ids, "--vocab-size", "20", *special)
    out = tmp_path / "rows"
    whole = ["data", "prepare", *ids, "--vocab-size", "30", *special, "--out", str(out)]
    assert cli.main(whole) == 0 and cli.main(["data", "show", str(out), "--rows", "1"]) == 0
    assert "[CLS]" in capsys.readouterr().out


def test_prepared_folders(home: Path, tmp_path: Path, refused, capsys) -> None:  # noqa: ANN001
    text = ("--text", str(home / "good.txt"))
    refused(3, "was prepared from other inputs (reading)", *text, "--out", str(home / "data"),
            "--format", "lines")  # fmt: skip
    shutil.copytree(home / "data", tmp_path / "data")
    (shard,) = (tmp_path / "data").glob("train-*.array_record")
    whole = shard.read_bytes()
    show = ["data", "show", str(tmp_path / "data")]
    assert cli.main(show) == 0
    for content, words in (
        (whole[:-100], f"{shard.name} has {len(whole) - 100} bytes instead of {len(whole)}"),
        (None, f"{shard.name} is missing"),
    ):
        shard.unlink() if content is None else shard.write_bytes(content)
        capsys.readouterr()
        assert cli.main(show) == 3
        assert words in capsys.readouterr().err
    for place in range(0, len(whole), max(1, len(whole) // 7)):
        altered = bytearray(whole)
        altered[place] ^= 16
        shard.write_bytes(altered)
        capsys.readouterr()
        code, told = cli.main(show), capsys.readouterr()
        if code:  # a byte that no record holds is found by no reading of records
            assert code == 3 and f"shard {tmp_path / 'data' / 'train-00000'} is damaged" in told.err


def test_a_disk_that_fills(home: Path, tmp_path: Path, refused) -> None:  # noqa: ANN001
    rng = np.random.default_rng(0)
    words = ["baker", "bread", "child", "bridge", "town", "old", "warm", "near"]
    lines = [" ".join(rng.choice(words, 30)) + f" {i}." for i in range(3000)]
    (tmp_path / "long.txt").write_text("\n\n".join(lines), encoding="utf-8")
    arguments = ("--text", str(tmp_path / "long.txt"), "--workers", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        refused(7, "File too large", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [name for name in os.listdir(tmp_path / "out") if "unfinished" in name]
    for out in ("out", "twin"):
        where = ["--tokenizer", str(home / "tokenizer"), "--out", str(tmp_path / out)]
        assert cli.main(["data", "prepare", *arguments, *where]) == 0
    assert digest(str(tmp_path / "out")) == digest(str(tmp_path / "twin"))
