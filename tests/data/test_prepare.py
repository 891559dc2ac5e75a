"""Preparation: the same bytes however it is done, what is dropped, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from albert_jax import files
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare import deduplication, steps
from albert_jax.data.prepare.plan import Plan, PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources import text_files
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.training import TrainingOptions, train
from albert_jax.errors import ConfigError, DataError, StorageError
from tests.data.made import digest

WORDS = "the baker sold warm bread and sweet cakes to every child near old town bridge".split()


def sentence(i: int) -> str:
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 9)).capitalize() + f" {i}."


def document(i: int) -> str:
    return " ".join(sentence(i * 7 + j) for j in range(1 + i % 5))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for f in range(3):
        documents = [document(f * 100 + i) for i in range(100)]
        documents += [document(7), "Short.", document(7)]
        (folder / f"{f}.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def vocab(corpus: Path) -> vocabulary.Vocabulary:
    train([f"{corpus}/*.txt"], str(corpus / "vocabulary"), TrainingOptions(vocab_size=60))
    return vocabulary.load(str(corpus / "vocabulary"))


class Killed(BaseException):
    """Ends a preparation as a signal would."""


def run(corpus: Path, vocab: vocabulary.Vocabulary, out: Path | str, **changed) -> dict:  # noqa: ANN003
    log = changed.pop("log", lambda _: None)
    options = {"workers": 1, "part_bytes": 9000, "validation_share": 0.1, **changed}
    return prepare([f"{corpus}/*.txt"], vocab, str(out), PrepareOptions(**options), log)


def test_what_a_folder_holds(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = run(corpus, vocab, tmp_path / "p", log=lines.append)
    counts = manifest["counts"]
    assert counts["documents_read"] == 309
    assert counts["documents_too_short"] == 3
    assert counts["documents_copies"] == 6  # all but the first of seven
    assert any("6 exact copies, 3 nearly empty" in line for line in lines)
    splits = [Corpus.open(tmp_path / "p", split) for split in ("train", "validation")]
    assert sum(split.num_documents for split in splits) == 300
    assert 10 <= splits[1].num_documents <= 60
    found: set[str] = set()
    for split in splits:
        assert split.vocabulary().fingerprint == vocab.fingerprint
        parts, sentences = split.lengths(range(split.num_windows))
        bounds = np.cumsum(sentences)[np.cumsum(parts) - 1]
        texts = np.split(split.ids(range(split.num_windows)), bounds)[:-1]
        found |= {vocab.decode(ids.tolist()) for ids in texts}
    assert found == {document(i).lower() for i in range(300)}
    ids = np.concatenate([splits[0].ids([w]) for w in range(splits[0].num_windows)])
    assert (splits[0].unigram == np.bincount(ids, minlength=vocab.size)).all()
    assert not (tmp_path / "p/prepare-work").exists()


def test_same_bytes_for_any_number_of_workers_and_shards(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    run(corpus, vocab, tmp_path / "one")
    expected = digest(str(tmp_path / "one"))
    for workers in (2, 4):
        run(corpus, vocab, tmp_path / str(workers), workers=workers)
        assert digest(str(tmp_path / str(workers))) == expected
    out = tmp_path / "shards"
    others = [
        threading.Thread(target=run, args=(corpus, vocab, out), kwargs={"shard": (i, 3)})
        for i in (1, 2)
    ]
    for thread in others:
        thread.start()
    run(corpus, vocab, out, shard=(0, 3))
    for thread in others:
        thread.join(60)
    assert digest(str(out)) == expected


def test_a_bucket_gets_the_same_bytes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, vocab, tmp_path / "local")
    expected = digest(str(tmp_path / "local"))
    out, write = "memory://bucket/prepared", Plan.write_record

    def killed(plan: Plan, step: str, index: int, record: dict) -> None:
        if (step, index) == ("encode", 1):
            raise Killed
        write(plan, step, index, record)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Plan, "write_record", killed)
        run(corpus, vocab, out)
    with pytest.raises(DataError, match=r"other inputs \(min_characters\)"):
        run(corpus, vocab, out, min_characters=9)
    run(corpus, vocab, out)
    assert digest(out) == expected
    assert not files.names(f"{out}/prepare-work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Corpus.open(out).num_tokens == Corpus.open(tmp_path / "local").num_tokens


def test_two_that_begin_in_a_bucket_at_once_do_not_mix(
    corpus: Path, vocab: vocabulary.Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(path: str, data: bytes) -> bool:
        files.write(path, data.replace(b'"min_characters": 20', b'"min_characters": 21'))
        return False

    monkeypatch.setattr(files, "create_if_absent", beaten)
    with pytest.raises(DataError, match=r"other inputs \(min_characters\)"):
        run(corpus, vocab, "memory://bucket/beaten")
    assert files.read("memory://bucket/beaten/vocabulary/vocabulary.json") is None


def test_second_run_is_done_and_other_inputs_are_refused(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    first = run(corpus, vocab, tmp_path / "p")
    before = digest(str(tmp_path / "p"))
    lines: list[str] = []
    assert run(corpus, vocab, tmp_path / "p", log=lines.append) == first
    assert lines == [f"{tmp_path / 'p'} is prepared already"]
    with pytest.raises(DataError, match=r"other inputs \(sentences\)"):
        run(corpus, vocab, tmp_path / "p", sentences="line")
    assert digest(str(tmp_path / "p")) == before


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, vocab, tmp_path / "whole")
    expected = digest(str(tmp_path / "whole"))
    write, out = Plan.write_record, tmp_path / "p"
    for allowed in range(1, 40, 4):
        left = allowed

        def limited(*arguments) -> None:  # noqa: ANN002
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            write(*arguments)

        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(Plan, "write_record", limited)
            try:
                run(corpus, vocab, out)
            except Killed:
                assert not (out / "manifest.json").exists()
        run(corpus, vocab, out)
        assert digest(str(out)) == expected


def test_what_a_killed_command_left_goes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, vocab, tmp_path / "whole")
    out = tmp_path / "p"

    def killed(path: str) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(files, "delete_tree", killed)
        (out / "prepare-work").mkdir(parents=True)
        (out / "vocabulary").mkdir()
        (out / "vocabulary" / "spiece.model.0123abcd.tmp").write_bytes(b"half")
        (out / "manifest.json.0123abcd.tmp").write_bytes(b"half")
        run(corpus, vocab, out)
    assert (out / "manifest.json").exists() and (out / "prepare-work").is_dir()
    run(corpus, vocab, out)
    assert digest(str(out)) == digest(str(tmp_path / "whole"))


def test_files_of_others_stay(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    mine = [tmp_path / "p" / name for name in ("thesis.tmp", "deep/a.0123abcd.tmp", "work/run")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in mine:
        path.write_bytes(b"mine")
    run(corpus, vocab, tmp_path / "p")
    assert all(path.exists() for path in mine)


@pytest.mark.slow
def test_killed_outright(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    run(corpus, vocab, tmp_path / "whole", part_bytes=2000)
    expected, out = digest(str(tmp_path / "whole")), tmp_path / "p"
    code = (
        "from albert_jax.data.prepare import plan, prepare\n"
        "from albert_jax.data.vocabularies import vocabulary\n"
        f"v = vocabulary.load({str(corpus / 'vocabulary')!r})\n"
        "o = plan.PrepareOptions(workers=1, part_bytes=2000, validation_share=0.1)\n"
        f"prepare.prepare([{str(corpus) + '/*.txt'!r}], v, {str(out)!r}, o)"
    )
    for wait in (0.0, 0.05, 0.1, 0.2):
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", code])
        while not (out / "prepare-work").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        run(corpus, vocab, out, part_bytes=2000)
        assert digest(str(out)) == expected


def test_two_at_once_are_refused(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    refused: list[Exception] = []

    def again(_: str) -> None:
        try:
            run(corpus, vocab, tmp_path / "p")
        except StorageError as error:
            refused.append(error)

    run(corpus, vocab, tmp_path / "p", log=again)
    assert refused and f"is being prepared by process {os.getpid()}" in str(refused[0])


def test_the_parts_of_a_long_document_are_held_out_together(
    vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "MAX_DOCUMENT", 800)
    books = ["\n".join(sentence(1000 * b + i) for i in range(60)) for b in range(1, 21)]
    (tmp_path / "t.txt").write_text("\n\n".join(books), encoding="utf-8")
    options = PrepareOptions(validation_share=0.3, workers=1)
    counts = prepare([str(tmp_path / "t.txt")], vocab, str(tmp_path / "p"), options)["counts"]
    assert counts["cut_documents"] and counts["train_documents"] > 20
    held = []
    for split in ("train", "validation"):
        corpus = Corpus.open(tmp_path / "p", split)
        text = vocab.decode(corpus.ids(range(corpus.num_windows)).tolist())
        held.append({int(number) // 1000 for number in re.findall(r"\d{4,5}", text)})
    assert held[0] | held[1] == set(range(1, 21)) and not held[0] & held[1]


def test_some_groups_are_held_out_and_never_all(
    vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    found = [document(5 * i + 4) for i in range(40)]
    low = [text for text in found if deduplication.hash_text(text.encode())[0] < 2**63]
    high = [text for text in found if deduplication.hash_text(text.encode())[0] >= 2**63]
    for name, pair in (("low", low[:2]), ("high", high[:2])):
        text = tmp_path / f"{name}.txt"
        text.write_text("\n\n".join(pair), encoding="utf-8")
        counts = prepare(
            [str(text)], vocab, str(tmp_path / name), PrepareOptions(validation_share=0.5)
        )["counts"]
        assert counts["train_documents"] == counts["validation_documents"] == 1


def test_two_documents_are_the_least(vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text(document(3) + "\n\n" + document(3), encoding="utf-8")
    with pytest.raises(
        DataError, match="2 usable documents .* were found and at least 2 different"
    ):
        prepare([str(text)], vocab, str(tmp_path / "p"))
    text.write_text(document(3) + "\n\n" + document(4), encoding="utf-8")
    manifest = prepare([str(text)], vocab, str(tmp_path / "q"))
    assert manifest["counts"]["train_documents"] == 1
    assert manifest["counts"]["validation_documents"] == 1


def test_a_file_that_changes_between_two_steps(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "t.txt"
    text.write_text("\n\n".join(map(document, range(30))), encoding="utf-8")
    state = text.stat()
    find_duplicates = steps.find_duplicates

    def meddle(*arguments) -> None:  # noqa: ANN002
        content = text.read_text(encoding="utf-8").replace("warm", "cold")
        text.write_text(content, encoding="utf-8")
        os.utime(text, ns=(state.st_atime_ns, state.st_mtime_ns))
        find_duplicates(*arguments)

    monkeypatch.setattr(steps, "find_duplicates", meddle)
    with pytest.raises(DataError, match="changed between the two times"):
        prepare([str(text)], vocab, str(tmp_path / "p"), PrepareOptions(workers=1))
    assert not (tmp_path / "p/manifest.json").exists()
    assert not list((tmp_path / "p").glob("*.array_record"))


def test_rows_of_ids(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(4, 30, (50, 40))
    np.save(tmp_path / "rows.npy", rows)
    ids = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    manifest = prepare(
        [f"ids:{tmp_path / 'rows.npy'}"],
        ids,
        str(tmp_path / "p"),
        PrepareOptions(reading=ReadOptions(unit_tokens=10)),
    )
    assert manifest["counts"]["train_sentences"] + manifest["counts"]["validation_sentences"] == 200
    assert Corpus.open(tmp_path / "p").vocabulary().size == 30
    small = IdRange(20, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    with pytest.raises(DataError, match="outside the 20 of the vocabulary"):
        prepare([f"ids:{tmp_path / 'rows.npy'}"], small, str(tmp_path / "q"))


def test_padding_of_rows_of_ids_is_no_text(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(4, 30, (50, 40))
    rows[:, 25:] = 0
    np.save(tmp_path / "rows.npy", rows)
    ids = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)

    def make(name: str) -> dict:
        return prepare(
            [f"ids:{tmp_path / 'rows.npy'}"], ids, str(tmp_path / name),
            PrepareOptions(reading=ReadOptions(unit_tokens=10)),
        )  # fmt: skip

    counts = make("p")["counts"]
    assert counts["train_tokens"] + counts["validation_tokens"] == 50 * 25
    assert Corpus.open(tmp_path / "p").unigram[0] == 0
    for place, id in ((7, 0), (3, 2)):
        wrong = rows.copy()
        wrong[11, place] = id
        np.save(tmp_path / "rows.npy", wrong)
        with pytest.raises(
            DataError, match=f"row 11: holds the special id {id} at position {place}"
        ):
            make(f"q{id}")


SHARED = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_documents_that_share_text_with_evaluation_files_are_left_out(
    vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    clean = [document(i) for i in range(20)]
    twelve = " ".join(SHARED.split()[:12])
    texts = [*clean, f"{document(30)} {twelve}. Some other end."]
    texts += [f"{document(40)} {SHARED.upper()}!", "A line. " + SHARED.replace("seven", "seven,\n")]
    (tmp_path / "t.txt").write_text("\n\n".join(texts), encoding="utf-8")
    evaluation = tmp_path / "e.txt"
    evaluation.write_text(SHARED.replace(" eight", "\neight") + "\n", encoding="utf-8")
    lines: list[str] = []

    def make(name: str, *paths: Path) -> dict:
        options = PrepareOptions(decontaminate=tuple(map(str, paths)), workers=1)
        specs = [str(tmp_path / "t.txt")]
        return prepare(specs, vocab, str(tmp_path / name), options, lines.append)

    manifest = make("p", evaluation)
    assert manifest["overlap"] == {
        "files": [str(evaluation)], "runs": 2, "runs_found": 2, "documents": 2,
    }  # fmt: skip
    assert any(line.startswith("left out: 2 documents that share text") for line in lines)
    counts = manifest["counts"]
    assert counts["documents_read"] == 23
    assert counts["train_documents"] + counts["validation_documents"] == 21
    (tmp_path / "t.txt").write_text("\n\n".join(texts[:21]), encoding="utf-8")
    twin = make("twin")
    assert "overlap" not in twin
    for name in ("train-00000.array_record", "validation-00000.array_record", "unigram.npy"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "twin" / name).read_bytes()


def test_evaluation_text_is_found_in_json(vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    texts = [*map(document, range(4)), f"{document(9)} {SHARED}"]
    (tmp_path / "t.txt").write_text("\n\n".join(texts), encoding="utf-8")
    record = json.dumps({"a": {"b": [SHARED.replace(" eight", "\neight")]}})
    words = json.dumps({"tokens": SHARED.split()})
    for name, content in (
        ("e.json", record), ("e.jsonl", f"{record}\n{record}\n"), ("words.json", words),
    ):  # fmt: skip
        (tmp_path / name).write_text(content, encoding="utf-8")
        options = PrepareOptions(decontaminate=(str(tmp_path / name),))
        manifest = prepare([str(tmp_path / "t.txt")], vocab, str(tmp_path / f"p{name}"), options)
        assert manifest["overlap"]["documents"] == 1
    options = PrepareOptions(decontaminate=(str(tmp_path / "zh.txt"),))
    chinese = "猫坐在垫子上看着窗外的雨下了一整天"
    (tmp_path / "zh.txt").write_text(chinese, encoding="utf-8")
    (tmp_path / "t2.txt").write_text("\n\n".join([*texts, f"{document(7)} {chinese}"]))
    manifest = prepare([str(tmp_path / "t2.txt")], vocab, str(tmp_path / "pzh"), options)
    assert manifest["overlap"]["documents"] == 1
    (tmp_path / "gb.txt").write_bytes(chinese.encode("gb18030"))
    options = PrepareOptions(decontaminate=(str(tmp_path / "gb.txt"),))
    with pytest.raises(DataError, match=r"gb\.txt:1: not UTF-8"):
        prepare([str(tmp_path / "t2.txt")], vocab, str(tmp_path / "pgb"), options)
    (tmp_path / "short.jsonl").write_text(json.dumps({"sentence_good": "The cat sits."}))
    options = PrepareOptions(decontaminate=(str(tmp_path / "short.jsonl"),))
    with pytest.raises(DataError, match=r"short\.jsonl: no text of 13 words"):
        prepare([str(tmp_path / "t2.txt")], vocab, str(tmp_path / "pshort"), options)
    (tmp_path / "e.txt").write_bytes(b"PAR1" + bytes(100))
    options = PrepareOptions(decontaminate=(str(tmp_path / "e.txt"),))
    with pytest.raises(DataError, match=r"e\.txt: is Parquet: write its texts"):
        prepare([str(tmp_path / "t.txt")], vocab, str(tmp_path / "q"), options)


def test_other_evaluation_text_is_another_input(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    evaluation = tmp_path / "e.txt"
    evaluation.write_text(SHARED, encoding="utf-8")
    run(corpus, vocab, tmp_path / "p", decontaminate=(str(evaluation),))
    evaluation.write_text(SHARED.upper(), encoding="utf-8")
    with pytest.raises(DataError, match=r"other inputs \(decontaminate\)"):
        run(corpus, vocab, tmp_path / "p", decontaminate=(str(evaluation),))


def test_a_command_that_waited_for_the_lock_of_a_finished_one(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command finishes, and deletes the lock, after this one has opened it."""
    flock, lines = fcntl.flock, []

    def late(file, operation: int) -> None:  # noqa: ANN001
        monkeypatch.setattr(fcntl, "flock", flock)
        run(corpus, vocab, tmp_path / "p")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    run(corpus, vocab, tmp_path / "p", log=lines.append)
    assert lines == [f"{tmp_path / 'p'} is prepared already"]
    assert not (tmp_path / "p/prepare-work").exists()


def test_a_command_that_waited_for_the_lock_of_a_failed_one(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock that a third command asks for."""
    flock, asked = fcntl.flock, []

    def fail(line: str) -> None:
        raise KeyError(line)

    def late(file, operation: int) -> None:  # noqa: ANN001
        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(KeyError):
            run(corpus, vocab, tmp_path / "p", log=fail)
        flock(file, operation)

    def again(line: str) -> None:
        asked.append(line)
        if len(asked) == 1:
            with pytest.raises(StorageError, match="is being prepared by process"):
                run(corpus, vocab, tmp_path / "p")

    monkeypatch.setattr(fcntl, "flock", late)
    run(corpus, vocab, tmp_path / "p", log=again)
    assert asked


def tables_of(
    folder: str, numbers: np.ndarray, rng: np.random.Generator
) -> tuple[list[str], list[list[int]]]:
    """Paths of the tables of four parts with these documents, and their counts by prefix."""
    pool = rng.integers(1, 2**63, (200, 2)).astype(np.uint64) * np.uint64(2)
    tables, ends = [], []
    for part, chosen in enumerate(numbers):
        table = np.zeros(len(chosen), deduplication.ROW)
        table["high"], table["low"] = pool[chosen].T
        table["number"] = np.arange(len(chosen))
        table["high"][:5] = table["low"][:5] = 0
        table.sort(order=["high", "low", "number"])
        tables.append(f"{folder}/{part}.npy")
        deduplication.write_array(tables[-1], table)
        ends.append(deduplication.prefix_ends(table))
    return tables, ends


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_duplicates_over_many_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 200, (4, 150))
    folder = str(tmp_path) if place == "disk" else "memory://bucket/tables"
    tables, ends = tables_of(folder, chosen, rng)
    seen: set[int] = set()
    expected: set[tuple[int, int]] = set()
    for part, numbers in enumerate(chosen.tolist()):
        for number, which in enumerate(numbers):
            if number >= 5 and which in seen:
                expected.add((part, number))
            seen |= {which} if number >= 5 else set()
    bytes_read = 0

    def counted(read: Callable) -> Callable:
        def counting(*arguments: object, **options: object) -> object:
            nonlocal bytes_read
            content = read(*arguments, **options)
            bytes_read += memoryview(content).nbytes
            return content

        return counting

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted(MemoryFileSystem.cat_file))
    monkeypatch.setattr(np, "fromfile", counted(np.fromfile))
    monkeypatch.setattr(files, "read", None)
    for count in (1, 4, 64):
        found, bytes_read = set(), 0
        for index in range(count):
            rows = [deduplication.partition_rows(part_ends, index, count) for part_ends in ends]
            duplicates = deduplication.find_duplicates(tables, rows)
            found |= {(part, int(n)) for part, numbers in enumerate(duplicates) for n in numbers}
        assert found == expected
        assert bytes_read == 600 * deduplication.ROW.itemsize, "each row is read once"


def test_many_partitions_give_the_same_bytes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, vocab, tmp_path / "one")
    monkeypatch.setattr(deduplication, "PARTITION_DOCUMENTS", 50)
    run(corpus, vocab, tmp_path / "eight")
    assert digest(str(tmp_path / "one")) == digest(str(tmp_path / "eight"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shard": (3, 3)}, "shard 3/3"),
        ({"validation_share": 0.9}, "between 0 and 0.5"),
        ({"workers": 0}, "at least 1"),
        ({"language": "English"}, "ISO 639"),
    ],
)
def test_arguments(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, changed: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(corpus, vocab, tmp_path / "p", **changed)


def test_manifest_damaged(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/manifest.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="manifest is damaged"):
        run(corpus, vocab, tmp_path / "p")


def test_a_run_folder_is_no_place_for_prepared_text(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    vocabulary.save(vocab, str(tmp_path / "run" / "vocabulary"))
    with pytest.raises(DataError, match="holds a model or a vocabulary: choose another --out"):
        run(corpus, vocab, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["vocabulary"]
