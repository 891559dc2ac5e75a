"""Columns beside the ids: they follow them everywhere, and a folder without any stays as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from albert_jax import cli
from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.batch import batch_shapes, empty_batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.pipeline import batches, held_out
from albert_jax.data.corpus import shard_writer
from albert_jax.data.corpus.columns import Columns
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.corpus.shard_writer import ShardWriter
from albert_jax.data.corpus.shards import ShardReader
from albert_jax.data.prepare import steps
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.errors import DataError
from albert_jax.verify import verify
from tests.data.made import digest, documents

VOCAB = IdRange(120, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
WORDS = [f"w{i}" for i in range(300)]
GOLDEN = "8d1ebe019b995cf1"
"""Hash of a folder and of rows as they were before there were columns."""
PHASE = PhaseConfig(sequence_length=48, batch_size=32, packing=True)


def columns_of(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Word starts and labels that can be recognized: both follow from the id."""
    return ids % 3 == 0, (ids * 2 + 1) % 300


def table(
    path: Path, count: int = 300, *, drop: tuple[str, ...] = (), seed: int = 0, **changed
) -> str:  # noqa: ANN003
    docs = documents(count, seed=seed)
    content = {
        "ids": [ids.tolist() for ids, _ in docs],
        "sentence_lengths": [lengths.tolist() for _, lengths in docs],
        "word_starts": [columns_of(ids)[0].tolist() for ids, _ in docs],
        "labels": [columns_of(ids)[1].tolist() for ids, _ in docs],
    } | changed  # fmt: skip
    kept = pyarrow.table({name: value for name, value in content.items() if name not in drop})
    pyarrow.parquet.write_table(kept, path, row_group_size=50)
    return f"ids:{path}"


def labels_file(folder: Path) -> str:
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return str(folder / "words.txt")


def make(tmp_path: Path, name: str, spec: str, **changed) -> dict:  # noqa: ANN003
    options = {"workers": 1, "validation_share": 0.1, "labels": labels_file(tmp_path), **changed}
    return prepare([spec], VOCAB, str(tmp_path / name), PrepareOptions(**options))


def builder_of(corpora: list[Corpus], phase: PhaseConfig = PHASE) -> BatchBuilder:
    return BatchBuilder(corpora, corpora[0].vocabulary(), phase, seed=1, phase_index=0)


def original(batch: dict) -> np.ndarray:
    """input_ids with the masked tokens put back."""
    text = batch["input_ids"].copy()
    used = batch["mlm_weights"] > 0
    text[np.nonzero(used)[0], batch["mlm_positions"][used]] = batch["mlm_labels"][used]
    return text


@pytest.mark.parametrize("num_labels", [0, 300, 70_000])
@pytest.mark.parametrize("word_starts", [False, True])
def test_a_shard_returns_its_columns(tmp_path, monkeypatch, num_labels, word_starts):
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 50)
    columns, docs = Columns(word_starts, num_labels), documents(40, longest=4)
    with ShardWriter(tmp_path, "s", 120, columns) as writer:
        for ids, lengths in docs:
            starts, labels = columns_of(ids)
            writer.add_many(
                *(ids, lengths, np.array([len(lengths)])),
                starts if word_starts else None,
                labels * (num_labels // 300) if num_labels else None,
            )
        entry = writer.close()
    reader = ShardReader(tmp_path, entry, 120, columns)
    for window in range(entry["windows"]):
        ids, starts, labels = reader.tokens(window)
        assert ids.dtype == np.uint16 and (starts is None) != word_starts
        if starts is not None:
            assert (starts == columns_of(ids.astype(int))[0]).all()
        assert (labels is None) == (num_labels == 0)
        if labels is not None:
            assert (labels == columns_of(ids.astype(int))[1] * (num_labels // 300)).all()
            assert labels.dtype.itemsize == (4 if num_labels > 1 << 16 else 2)


def test_labels_outside_are_refused_when_written_and_read(tmp_path):
    ids, lengths, counts = np.full(5, 9), np.array([5]), np.array([1])
    with (
        pytest.raises(DataError, match="s, documents from 0 on: label 7 is outside .* of 7"),
        ShardWriter(tmp_path, "s", 120, Columns(num_labels=7)) as writer,
    ):
        writer.add_many(ids, lengths, counts, None, np.full(5, 7))
    with ShardWriter(tmp_path, "s", 120, Columns(num_labels=8)) as writer:
        writer.add_many(ids, lengths, counts, None, np.full(5, 7))
        entry = writer.close()
    with pytest.raises(DataError, match="record 0: label 7 is outside the 7 labels"):
        ShardReader(tmp_path, entry, 120, Columns(num_labels=7)).tokens(0)
    with pytest.raises(DataError, match="another length than the index"):
        ShardReader(tmp_path, entry, 120, Columns(True, 8)).tokens(0)


def test_prepared_folders_without_columns_keep_their_bytes(tmp_path):
    spec = table(tmp_path / "t.parquet", drop=("word_starts", "labels"))
    make(tmp_path, "p", spec, labels=None)
    files = {path.name: path for path in (tmp_path / "p").glob("*-0000*")}
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + hashlib.sha256(files[name].read_bytes()).digest())
    manifest = json.loads((tmp_path / "p/manifest.json").read_text())
    rows = builder_of([Corpus.open(tmp_path / "p")]).batch(3, np.arange(32))
    for name in sorted(rows):
        total.update(rows[name].tobytes())
    assert total.hexdigest()[:16] == GOLDEN
    assert "columns" not in manifest and "columns" not in manifest["inputs"]


def test_columns_change_neither_ids_nor_rows(tmp_path):
    make(tmp_path, "with", table(tmp_path / "t.parquet"))
    make(
        tmp_path,
        "without",
        table(tmp_path / "u.parquet", drop=("word_starts", "labels")),
        labels=None,
    )
    with_, without = Corpus.open(tmp_path / "with"), Corpus.open(tmp_path / "without")
    assert with_.columns == Columns(True, 300) and without.columns == Columns()
    assert with_.labels() == tuple(WORDS) and without.labels() == ()
    assert with_.content != without.content
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(mask_unit="token"))
    one, two = (builder_of([c], phase).batch(2, np.arange(32)) for c in (with_, without))
    # Documents are copies only if their columns are the same, so the split is another one.
    assert one.keys() == two.keys()
    windows = range(with_.num_windows)
    ids, starts, labels = with_.tokens(windows)
    assert (starts == columns_of(ids.astype(int))[0]).all()
    assert (labels == columns_of(ids.astype(int))[1]).all()


@pytest.mark.parametrize("packing", [False, True])
def test_columns_stand_at_their_tokens_in_every_row(tmp_path, small_windows, packing):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    corpus = Corpus.open(tmp_path / "p")
    for words in ("none", "masked", "all"):
        phase = dataclasses.replace(
            PHASE, packing=packing, objective=ObjectiveConfig(word_prediction=words)
        )
        builder = builder_of([corpus], phase)
        batch = builder.batch(5, np.arange(32), columns=True)
        text = original(batch)
        is_text = (text > 4).astype(bool)
        starts, labels = columns_of(text)
        assert (batch["word_starts"] == (starts & is_text)).all()
        expected = np.where(is_text, labels, -1)
        assert (batch["labels"] == expected).all()
        plain = builder.batch(5, np.arange(32))
        shapes = batch_shapes(phase, 32)
        assert {k: (v.shape, v.dtype) for k, v in plain.items()} == shapes
        assert ("word_labels" in plain) == (words != "none")
        if words == "all":
            assert (plain["word_labels"] == expected).all()
            assert (empty_batch(phase, 2)["word_labels"] == -1).all()
        if words == "masked":
            used = plain["mlm_weights"] > 0
            assert (plain["word_labels"][used] == columns_of(plain["mlm_labels"][used])[1]).all()
            assert not plain["word_labels"][~used].any()


def test_whole_words_of_the_column_are_masked(tmp_path):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(mask_unit="word", mask_rate=0.3))
    batch = builder_of([Corpus.open(tmp_path / "p")], phase).batch(0, np.arange(32), columns=True)
    text, masked = original(batch), np.zeros(batch["input_ids"].shape, bool)
    used = batch["mlm_weights"] > 0
    masked[np.nonzero(used)[0], batch["mlm_positions"][used]] = True
    # Within text a token that does not start a word is masked if and only if the one before is.
    inner = (text[:, 1:] > 4) & (text[:, :-1] > 4) & ~batch["word_starts"][:, 1:]
    assert inner.sum() > 300 and masked.sum() > 200
    assert (masked[:, 1:] == masked[:, :-1])[inner].all()


def test_any_workers_shards_and_hosts_and_a_kill_give_the_same(tmp_path, monkeypatch):
    spec = table(tmp_path / "t.parquet")
    make(tmp_path, "one", spec)
    expected = digest(str(tmp_path / "one"))
    make(tmp_path, "two", spec, workers=2)
    encode_part, calls = steps.encode_part, []

    def killed(*arguments):  # noqa: ANN002
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        encode_part(*arguments)

    monkeypatch.setattr(steps, "encode_part", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "killed", spec)
    monkeypatch.undo()
    make(tmp_path, "killed", spec)
    assert {digest(str(tmp_path / name)) for name in ("two", "killed")} == {expected}
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(word_prediction="masked"))
    builder = builder_of([Corpus.open(tmp_path / "one")], phase)
    whole = builder.batch(7, np.arange(32))
    for hosts in (1, 2, 4):
        parts = [builder.batch(7, np.arange(i, 32, hosts)) for i in range(hosts)]
        for name, array in whole.items():
            assert all((part[name] == array[i::hosts]).all() for i, part in enumerate(parts)), name
    [ahead] = batches(builder, 7, 8, np.arange(32), workers=1)
    assert all((ahead[name] == array).all() for name, array in whole.items())


def test_beam_gives_the_same_bytes(tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam (extra beam) is not installed")
    spec = table(tmp_path / "t.parquet")
    make(tmp_path, "pool", spec)
    make(tmp_path, "beam", spec, workers=None, beam=("BundleBasedDirectRunner",))
    assert digest(str(tmp_path / "pool")) == digest(str(tmp_path / "beam"))


def test_held_out_filler_rows_have_no_labels(tmp_path):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(word_prediction="all"))
    corpus = Corpus.open(tmp_path / "p", "validation")
    rows = held_out(corpus, phase, VOCAB, max_rows=7, batch_size=4, seed=0)
    assert (rows[1]["word_labels"][3] == -1).all() and (rows[0]["word_labels"] >= 0).any()


def test_damaged_text_that_is_left_out_has_no_labels(tmp_path, small_windows):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    whole = Corpus.open(tmp_path / "p")
    damaged = Corpus.open(tmp_path / "p")
    damaged.left_out = frozenset(range(0, damaged.num_windows, 3))
    for words in ("masked", "all"):
        phase = dataclasses.replace(
            PHASE, objective=ObjectiveConfig(word_prediction=words, mask_unit="token")
        )
        one, two = (
            builder_of([c], phase).batch(0, np.arange(32), columns=True) for c in (whole, damaged)
        )
        lost = (two["segment_ids"] == 0) & (one["segment_ids"] > 0)
        assert lost.any() and not two["word_starts"][lost].any()
        assert (two["labels"][lost] == -1).all()
        kept = two["segment_ids"] > 0
        assert (two["labels"][kept] == one["labels"][kept]).all()
        if words == "all":
            assert (two["word_labels"] == two["labels"]).all()
        else:
            assert not two["word_labels"][two["mlm_weights"] == 0].any()


def test_mixtures_need_the_same_labels(tmp_path):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    make(tmp_path, "q", table(tmp_path / "u.parquet", seed=1))
    make(tmp_path, "bare", table(tmp_path / "v.parquet", drop=("labels",)), labels=None)
    corpora = [Corpus.open(tmp_path / name) for name in ("p", "q", "bare")]
    assert "labels" in builder_of(corpora[:2]).batch(0, np.arange(4), columns=True)
    with pytest.raises(DataError, match=r"bare has other labels than .*p, or one of them has none"):
        builder_of([corpora[0], corpora[2]])
    WORDS.reverse()
    make(tmp_path, "other", table(tmp_path / "w.parquet"))
    WORDS.reverse()
    with pytest.raises(DataError, match="has other labels than"):
        builder_of([corpora[0], Corpus.open(tmp_path / "other")])
    phase = dataclasses.replace(PHASE, objective=ObjectiveConfig(word_prediction="masked"))
    with pytest.raises(DataError, match="bare has no labels, and the objective predicts words"):
        builder_of([corpora[2]], phase)
    starts = builder_of([corpora[2]]).batch(0, np.arange(4), columns=True)
    assert "word_starts" in starts and "labels" not in starts


def test_bad_columns_are_told_in_one_line(tmp_path):
    ids = [[5, 6, 7]] * 9
    good = {
        "ids": ids,
        "sentence_lengths": ids,
        "word_starts": [[True] * 3] * 9,
        "labels": [[1, 2, 3]] * 9,
    }
    good["sentence_lengths"] = [[3]] * 9

    def refused(match: str, words: str | None = labels_file(tmp_path), **changed) -> None:  # noqa: ANN003
        spec = table(tmp_path / "bad.parquet", **(good | changed))
        out = f"p{len(list(tmp_path.iterdir()))}"
        with pytest.raises(DataError, match=match) as caught:
            make(tmp_path, out, spec, labels=words)
        assert "\n" not in str(caught.value) and not (tmp_path / out / "manifest.json").exists()

    nine = [[1, 2, 3]] * 8
    refused("row group 0, row 8: its labels have 2 tokens, its ids 3", labels=[*nine, [1, 2]])
    refused("row 8: its word_starts have 4 tokens", word_starts=[[True] * 3] * 8 + [[True] * 4])
    refused("row 8: label 300 at position 1 is outside the 300 words", labels=[*nine, [1, 300, 2]])
    refused("row 8: label -1 at position 0 is outside", labels=[*nine, [-1, 3, 2]])
    refused("row 8: does not hold integers", word_starts=[[True] * 3] * 8 + [[None] * 3])
    refused("'word_starts' must hold lists of booleans", word_starts=[[1, 2, 3]] * 9)
    refused("have a column labels: give --labels", None)
    refused("have no column labels", drop=("labels",))
    refused("nothing.txt: no such file", str(tmp_path / "nothing.txt"))
    for content, match in (
        (b"a\nb\na\n", "line 3: 'a' is in line 1 too"),
        (b"a\n\nb\n", "line 2: is empty"),
        (b"a\n\xff\n", "invalid UTF-8 at byte 2"),
    ):
        (tmp_path / "wrong.txt").write_bytes(content)
        refused(match, str(tmp_path / "wrong.txt"))
    table(tmp_path / "one.parquet")
    table(tmp_path / "two.parquet", drop=("word_starts",))
    with pytest.raises(DataError, match="only one of them has a column 'word_starts'"):
        make(tmp_path, "q", f"ids:{tmp_path}/*o*.parquet")


def test_other_columns_are_other_inputs(tmp_path):
    spec = table(tmp_path / "t.parquet")
    make(tmp_path, "p", spec)
    (tmp_path / "more.txt").write_text("\n".join([*WORDS, "more"]), encoding="utf-8")
    with pytest.raises(DataError, match=r"other inputs \(labels\)"):
        make(tmp_path, "p", spec, labels=str(tmp_path / "more.txt"))


def test_a_changed_file_of_labels_or_manifest_is_noticed(tmp_path):
    make(tmp_path, "p", table(tmp_path / "t.parquet"))
    assert all(check.ok for check in verify(str(tmp_path / "p")))
    file, manifest = tmp_path / "p/labels.txt", tmp_path / "p/manifest.json"
    whole, described = file.read_text(), json.loads(manifest.read_text())
    assert described["columns"]["labels"]["size"] == 300
    file.write_text(whole.replace("w7\n", "w8\n"))
    with pytest.raises(DataError, match=r"labels\.txt is missing or does not match its checksum"):
        Corpus.open(tmp_path / "p")
    assert not all(check.ok for check in verify(str(tmp_path / "p")))
    file.write_text(whole)
    for wrong in (
        [],
        {},
        {"word_starts": 1},
        {"labels": {}},
        {"labels": {"size": 9**9, "sha256": ""}},
    ):
        manifest.write_text(json.dumps({**described, "columns": wrong}))
        with pytest.raises(DataError, match=r"unknown columns|an entry is missing or wrong"):
            Corpus.open(tmp_path / "p")
    manifest.write_text(json.dumps({**described, "columns": {"word_starts": True}}))
    with pytest.raises(DataError, match="another length than the index"):
        Corpus.open(tmp_path / "p").check_records()


def test_show_prints_words_and_labels(tmp_path, capsys):
    ids = [[6, 7, 8, 9, 10], [9, 7, 8, 6, 10]] * 20
    words = [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]] * 20
    (tmp_path / "l.txt").write_text("hello\nworld\n", encoding="utf-8")
    ids = [[*line, 11 + i] for i, line in enumerate(ids)]
    words = [[*line, 1] for line in words]
    starts = [[id % 3 == 0 for id in line] for line in ids]
    lengths = [[3, 3]] * 40
    spec = table(
        tmp_path / "t.parquet", ids=ids, sentence_lengths=lengths, word_starts=starts, labels=words
    )
    arguments = [
        "data",
        "prepare",
        "--ids",
        spec.removeprefix("ids:"),
        "--labels",
        str(tmp_path / "l.txt"),
    ]
    arguments += ["--vocab-size", "120", "--special-ids", "0", "2", "3", "4", "1"]
    assert cli.main([*arguments, "--out", str(tmp_path / "p")]) == 0
    assert "columns beside the ids: word starts, labels of 2 words" in capsys.readouterr().err
    assert cli.main(["data", "show", str(tmp_path / "p"), "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "labels: hello world" in shown or "labels: world hello" in shown
    assert " |6 7 8 " in shown or "|6 [MASK|7] 8" in shown or "|[MASK|6]" in shown
    assert "; | a word begins, as the data say; labels: " in shown.splitlines()[-1]
    assert cli.main(["data", "stats", str(tmp_path / "p"), "--batches", "1"]) == 0
