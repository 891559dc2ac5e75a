"""Preparation: the same bytes however it is done, what is dropped, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from albert_jax import files
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare import deduplication as dedup
from albert_jax.data.prepare import steps as stages
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.training import train
from albert_jax.errors import ConfigError, DataError, StorageError

from made import digest  # isort: skip

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
    train([f"{corpus}/*.txt"], 60, str(corpus / "vocabulary"))
    return vocabulary.load(str(corpus / "vocabulary"))


class Killed(BaseException):
    """Ends a preparation as a signal would."""


def run(corpus: Path, vocab: vocabulary.Vocabulary, out: Path, **changed) -> dict:  # noqa: ANN003
    options = {"workers": 1, "part_bytes": 9000, "validation_share": 0.1, **changed}
    return prepare([f"{corpus}/*.txt"], vocab, str(out), **options)  # type: ignore[arg-type]


def test_what_a_folder_holds(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = run(corpus, vocab, tmp_path / "p", say=lines.append)
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
        split.verify()
        assert split.vocabulary().fingerprint == vocab.fingerprint
        for window in map(split.window, range(split.num_windows)):
            bounds = np.cumsum(window.sentences)[np.cumsum(window.pieces) - 1]
            found |= {vocab.decode(ids.tolist()) for ids in np.split(window.ids, bounds)[:-1]}
    assert found == {document(i).lower() for i in range(300)}
    ids = np.concatenate([splits[0].ids([w]) for w in range(splits[0].num_windows)])
    assert (splits[0].unigram == np.bincount(ids, minlength=vocab.size)).all()
    assert not (tmp_path / "p/work").exists()


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
    out, options = "memory://bucket/prepared", {"workers": 1, "part_bytes": 9000}
    write = stages._write_record

    def killed(path: str, record: dict) -> None:
        if path.endswith("encode-00001.json"):
            raise Killed
        write(path, record)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stages, "_write_record", killed)
        prepare([f"{corpus}/*.txt"], vocab, out, validation_share=0.1, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"other inputs \(min_characters\)"):
        prepare([f"{corpus}/*.txt"], vocab, out, validation_share=0.1, min_characters=9, **options)  # type: ignore[arg-type]
    prepare([f"{corpus}/*.txt"], vocab, out, validation_share=0.1, **options)  # type: ignore[arg-type]
    assert digest(out) == expected
    assert not files.names(f"{out}/work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Corpus.open(out).num_tokens == Corpus.open(tmp_path / "local").num_tokens


def test_two_that_begin_in_a_bucket_at_once_do_not_mix(
    corpus: Path, vocab: vocabulary.Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(path: str, data: bytes) -> bool:
        files.write(path, data.replace(b'"min_characters": 20', b'"min_characters": 21'))
        return False

    monkeypatch.setattr(files, "create", beaten)
    with pytest.raises(DataError, match=r"other inputs \(min_characters\)"):
        prepare([f"{corpus}/*.txt"], vocab, "memory://bucket/beaten", workers=1)
    assert files.read("memory://bucket/beaten/vocabulary/vocabulary.json") is None


def test_second_run_is_done_and_other_inputs_are_refused(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    first = run(corpus, vocab, tmp_path / "p")
    before = digest(str(tmp_path / "p"))
    lines: list[str] = []
    assert run(corpus, vocab, tmp_path / "p", say=lines.append) == first
    assert lines == [f"{tmp_path / 'p'} is prepared already"]
    with pytest.raises(DataError, match=r"other inputs \(sentences\)"):
        run(corpus, vocab, tmp_path / "p", rule="line")
    assert digest(str(tmp_path / "p")) == before


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, vocab, tmp_path / "whole")
    expected = digest(str(tmp_path / "whole"))
    write, out = stages._write_record, tmp_path / "p"
    for allowed in range(1, 40, 4):
        left = allowed

        def limited(path: str, record: dict) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            write(path, record)

        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(stages, "_write_record", limited)
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
        (out / "vocabulary").mkdir(parents=True)
        (out / "vocabulary" / "spiece.model.0123abcd.tmp").write_bytes(b"half")
        (out / "manifest.json.0123abcd.tmp").write_bytes(b"half")
        run(corpus, vocab, out)
    assert (out / "manifest.json").exists() and (out / "work").is_dir()
    run(corpus, vocab, out)
    assert digest(str(out)) == digest(str(tmp_path / "whole"))


def test_files_of_others_stay(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    mine = [tmp_path / "p" / "thesis.tmp", tmp_path / "p" / "deep" / "a.0123abcd.tmp"]
    mine[1].parent.mkdir(parents=True)
    for path in mine:
        path.write_bytes(b"mine")
    run(corpus, vocab, tmp_path / "p")
    assert all(path.exists() for path in mine)


@pytest.mark.slow
def test_killed_outright(corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    run(corpus, vocab, tmp_path / "whole", part_bytes=2000)
    expected, out = digest(str(tmp_path / "whole")), tmp_path / "p"
    code = (
        "from albert_jax.data import prepare, vocabulary\n"
        f"v = vocabulary.load({str(corpus / 'vocabulary')!r})\n"
        f"prepare.prepare([{str(corpus) + '/*.txt'!r}], v, {str(out)!r}, workers=1, "
        "part_bytes=2000, validation_share=0.1)"
    )
    for wait in (0.0, 0.05, 0.1, 0.2):
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-c", code])
        while not (out / "work").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
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

    run(corpus, vocab, tmp_path / "p", say=again)
    assert refused and f"is being prepared by process {os.getpid()}" in str(refused[0])


def test_held_out_are_whole_groups() -> None:
    assert dedup.hash_group("typing") == dedup.hash_group("typing") != dedup.hash_group("inspect")


def test_some_groups_are_held_out_and_never_all(
    vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    found = [document(5 * i + 4) for i in range(40)]
    low = [text for text in found if dedup.hash_text(text.encode())[0] < 2**63]
    high = [text for text in found if dedup.hash_text(text.encode())[0] >= 2**63]
    for name, pair in (("low", low[:2]), ("high", high[:2])):
        text = tmp_path / f"{name}.txt"
        text.write_text("\n\n".join(pair), encoding="utf-8")
        counts = prepare([str(text)], vocab, str(tmp_path / name), validation_share=0.5)["counts"]
        assert counts["train_documents"] == counts["validation_documents"] == 1


def test_two_documents_are_the_least(vocab: vocabulary.Vocabulary, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text(document(3) + "\n\n" + document(3), encoding="utf-8")
    with pytest.raises(DataError, match="2 usable documents were found and at least 2 different"):
        prepare([str(text)], vocab, str(tmp_path / "p"))
    text.write_text(document(3) + "\n\n" + document(4), encoding="utf-8")
    manifest = prepare([str(text)], vocab, str(tmp_path / "q"))
    assert manifest["counts"]["train_documents"] == 1
    assert manifest["counts"]["validation_documents"] == 1


def test_a_file_that_changes_between_the_passes(
    corpus: Path, vocab: vocabulary.Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "t.txt"
    text.write_text("\n\n".join(map(document, range(30))), encoding="utf-8")
    state = text.stat()
    reduce = stages.reduce_range

    def meddle(*arguments) -> None:  # noqa: ANN002
        content = text.read_text(encoding="utf-8").replace("warm", "cold")
        text.write_text(content, encoding="utf-8")
        os.utime(text, ns=(state.st_atime_ns, state.st_mtime_ns))
        reduce(*arguments)

    monkeypatch.setattr(stages, "reduce_range", meddle)
    with pytest.raises(DataError, match="changed between the two times"):
        prepare([str(text)], vocab, str(tmp_path / "p"), workers=1)
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
        options=ReadOptions(unit_tokens=10),
    )
    assert manifest["counts"]["train_sentences"] + manifest["counts"]["validation_sentences"] == 200
    assert Corpus.open(tmp_path / "p").vocabulary().size == 30
    small = IdRange(20, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    with pytest.raises(DataError, match="outside the vocabulary of 20"):
        prepare([f"ids:{tmp_path / 'rows.npy'}"], small, str(tmp_path / "q"))


def test_padding_of_rows_of_ids_is_no_text(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(4, 30, (50, 40))
    rows[:, 25:] = 0
    np.save(tmp_path / "rows.npy", rows)
    ids = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)

    def make(name: str) -> dict:
        return prepare(
            [f"ids:{tmp_path / 'rows.npy'}"], ids, str(tmp_path / name),
            options=ReadOptions(unit_tokens=10),
        )  # fmt: skip

    counts = make("p")["counts"]
    assert counts["train_tokens"] + counts["validation_tokens"] == 50 * 25
    assert Corpus.open(tmp_path / "p").unigram[0] == 0
    for place, id in ((7, 0), (3, 2)):
        wrong = rows.copy()
        wrong[11, place] = id
        np.save(tmp_path / "rows.npy", wrong)
        with pytest.raises(DataError, match=f"row 11: holds the special id {id} at place {place}"):
            make(f"q{id}")


def test_evaluation_text_in_the_corpus_is_counted(
    vocab: vocabulary.Vocabulary, tmp_path: Path
) -> None:
    shared = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    documents = [f"{document(i)} {shared}. The end of it." for i in range(20)]
    (tmp_path / "t.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (tmp_path / "e.txt").write_text(f"{shared}\n{' '.join(WORDS)} other words\n", encoding="utf-8")
    lines: list[str] = []
    manifest = prepare(
        [str(tmp_path / "t.txt")], vocab, str(tmp_path / "p"),
        decontaminate=[str(tmp_path / "e.txt")], say=lines.append,
    )  # fmt: skip
    found = manifest["overlap"]
    assert (found["runs"], found["runs_found"]) == (2 + 5, 2)
    assert found["documents"] == manifest["counts"]["train_documents"]
    assert any("2 of 7 runs of words" in line for line in lines)


def test_duplicates_over_many_ranges(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pool = rng.integers(1, 2**63, (200, 2)).astype(np.uint64) * np.uint64(2)
    tables, seen, expected = [], set(), set()
    for part in range(4):
        chosen = rng.integers(0, 200, 150)
        table = np.zeros(150, dedup.ROW)
        table["high"], table["low"], table["number"] = *pool[chosen].T, np.arange(150)
        for number, which in enumerate(chosen.tolist()):
            if which in seen:
                expected.add((part, number))
            seen.add(which)
        tables.append(str(tmp_path / f"{part}.npy"))
        dedup.write_array(tables[-1], np.sort(table, order=["high", "low", "number"]))
    for count in (1, 4):
        found = np.concatenate([dedup.reduce_range(tables, i, count) for i in range(count)])
        assert {tuple(row) for row in found.tolist()} == expected


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
