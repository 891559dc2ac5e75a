"""Reading text: every form of source, stated rules for odd bytes, and one line for bad ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from albert_jax import protobuf_wire as wire
from albert_jax.data.sources import hub_datasets, sources, text_files, tfrecord
from albert_jax.data.sources.document import Part, ReadCounts
from albert_jax.data.sources.records import tfrecord_texts
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.errors import AlbertError, ConfigError, DataError, StorageError
from tests.data import tfds_builder

TEXT = "First document, first line.\nSecond line.\n\nSecond document.\n\n\n \nThird one.\n"
DOCUMENTS = ["First document, first line.\nSecond line.", "Second document.", "Third one."]


def texts(path: Path | str, **options: object) -> list[str]:
    found = sources.documents([str(path)], ReadOptions(**options))  # type: ignore[arg-type]
    return [document.text for document in found]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "a b \u6587.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_where_documents_end(plain: Path) -> None:
    assert texts(plain) == DOCUMENTS
    assert texts(plain, format="lines") == [
        *DOCUMENTS[0].split("\n"),
        *DOCUMENTS[1:],
    ]
    assert [t.split() for t in texts(plain, format="file")] == [TEXT.split()]


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_compressed_and_cut_off(tmp_path: Path, suffix: str, module) -> None:  # noqa: ANN001
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(module.compress(TEXT.encode()))
    assert texts(path) == DOCUMENTS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or ends early"):
        texts(path)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\u2028", "\u2029", "\u0085"])
def test_line_ends_and_byte_order_mark_are_as_the_clean_twin(tmp_path: Path, end: str) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", end).encode())
    assert texts(path) == DOCUMENTS


@pytest.mark.parametrize("block", [7, 16, 33, 1 << 20])
def test_blocks_do_not_matter(plain: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_files, "_BLOCK", block)
    assert texts(plain) == DOCUMENTS


@pytest.mark.parametrize("form", ["paragraphs", "lines"])
@pytest.mark.parametrize("part_bytes", [100, 1000, 2000])
def test_parts_hold_what_the_whole_holds(tmp_path: Path, form: str, part_bytes: int) -> None:
    path = tmp_path / "many.txt"
    lines = [f"Line {i} \u00e9" + ("\n\n\n" if i % 3 == 0 else "\n") for i in range(500)]
    path.write_text("".join(lines), encoding="utf-8")
    options = ReadOptions(format=form)  # type: ignore[arg-type]
    whole = [
        d.text
        for p in sources.parts([str(path)], options)
        for d in sources.read(p, options, ReadCounts())
    ]
    parts = sources.parts([str(path)], options, part_bytes)
    assert len(parts) > 1
    assert [
        d.text for p in reversed(parts) for d in list(sources.read(p, options, ReadCounts()))[::-1]
    ] == whole[::-1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"\xff", "invalid UTF-8 at byte 6: fix the file"),
        ("菜凉了。".encode("gb18030"), "invalid UTF-8 at byte 6: convert it from GB18030"),
        ("déjà vu ".encode("latin-1"), "invalid UTF-8 at byte 7: fix the file"),
        (b"\0", "control byte 0x00 at byte 6"),
        (b"\x1b", "0x1b at byte 6"),
    ],
)
def test_bad_text_is_named_or_skipped(tmp_path: Path, bad: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"Good.\n" + bad + b"bad\nGood too.\n")
    with pytest.raises(DataError, match=message) as caught:
        texts(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    counts = ReadCounts()
    options = ReadOptions(on_bad_text="skip")
    found = [
        d.text
        for p in sources.parts([str(path)], options)
        for d in sources.read(p, options, counts)
    ]
    assert found == ["Good.\nGood too."] and counts.bad_lines == 1


def test_a_bad_line_ends_where_any_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"Good.\r\xffbad\rGood too.\r")
    options, counts = ReadOptions(on_bad_text="skip"), ReadCounts()
    [part] = sources.parts([str(path)], options)
    [document] = sources.read(part, options, counts)
    assert document.text.split() == ["Good.", "Good", "too."] and counts.bad_lines == 1


def test_a_control_byte_at_the_very_beginning(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"\x1b\0Bad.\n")
    with pytest.raises(DataError, match="control byte 0x1b at byte 0"):
        texts(path)


def test_offset_of_bad_bytes_far_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    good = b"A line of text.\n" * 200_000
    path.write_bytes(good + b"\xc3(\n")
    with pytest.raises(DataError, match=f"byte {len(good)}"):
        texts(path)


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"%PDF", "PDF"), (b"\xff\xfeh\0", "UTF-16")],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, head: bytes, kind: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(head + b"rest")
    with pytest.raises(DataError, match=kind):
        texts(path)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("a.csv", "a table: write its column of text"),
        ("a.CSV.gz", "a table: write its column of text"),
        ("a.warc.gz", "a web archive"),
        ("a.zip", "unpack it"),
        ("a.tar.gz", "unpack it"),
        ("a.json", "name the file"),
        ("a.npy", "--ids"),
    ],
)
def test_files_that_hold_no_plain_text_are_refused_by_name(
    tmp_path: Path, name: str, fix: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    with pytest.raises(DataError, match=rf"{name}: .* is not plain text but .*{fix}"):
        texts(path)


@pytest.mark.parametrize("name", ["README", "a.md", "a.v1.2", "wiki.en", "a.txt.gz"])
def test_other_names_are_plain_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    assert texts(path) == DOCUMENTS


def test_missing_empty_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        texts(tmp_path / "*.txt")
    with pytest.raises(DataError, match="is a folder"):
        texts(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="is empty"):
        texts(tmp_path / "empty.txt")


def test_one_endless_line_is_cut_at_spaces(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("word " * 500_000, encoding="utf-8")
    counts = ReadCounts()
    (part,) = sources.parts([str(path)], ReadOptions())
    found = list(sources.read(part, ReadOptions(), counts))
    assert "".join(d.text for d in found).split() == ["word"] * 500_000
    assert counts.cut_lines == 2
    assert max(len(d.text) for d in found) <= text_files.MAX_LINE


def test_long_documents_go_on_as_others(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("A line of a very long book.\n" * 30_000, encoding="utf-8")
    counts = ReadCounts()
    (part,) = sources.parts([str(path)], ReadOptions())
    found = list(sources.read(part, ReadOptions(), counts))
    assert counts.cut_documents == len(found) - 1 > 1
    assert sum(d.text.count("book") for d in found) == 30_000
    assert {d.group for d in found} == {found[0].text}  # They are held out together.


def test_only_the_parts_of_one_document_are_held_out_together(tmp_path: Path) -> None:
    path = tmp_path / "books.txt"
    book = "A line of a very long book.\n" * 15_000
    path.write_text(f"short one\n\n{book}\nshort two\n\n{book.upper()}", encoding="utf-8")
    (part,) = sources.parts([str(path)], ReadOptions())
    found = list(sources.read(part, ReadOptions(), ReadCounts()))
    groups = [d.group for d in found]
    assert [bool(group) for group in groups] == [False, True, True, False, True, True]
    assert groups[1] == groups[2] != groups[4] == groups[5]


def test_long_records_of_jsonl_are_not_cut_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.JSONL"  # The case of an extension says nothing.
    rows = [{"text": f"{i} " + "word " * 600} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = sources.parts([str(path)], ReadOptions(), 10_000)
    assert len(parts) > 5
    found = [d.text for part in parts for d in sources.read(part, ReadOptions(), ReadCounts())]
    assert [text.split()[0] for text in found] == [str(i) for i in range(40)]


def test_lines_of_jsonl_that_are_no_utf8_are_skipped_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "One."}\n{"text": "caf\xe9"}\n{"text": "Two."}\n')
    with pytest.raises(DataError, match="line 2.*--on-bad-text skip"):
        texts(path)
    (part,), counts = sources.parts([str(path)], ReadOptions()), ReadCounts()
    found = sources.read(part, ReadOptions(on_bad_text="skip"), counts)
    assert [document.text for document in found] == ["One.", "Two."] and counts.bad_lines == 1


def test_pieces_of_a_long_record_are_held_out_together(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = "\n".join(f"{i} " + "word " * 10_000 for i in range(12))
    path.write_text(json.dumps({"text": long}) + "\n" + json.dumps({"text": "Short."}) + "\n")
    *pieces, short = sources.documents([str(path)])
    assert len(pieces) > 1 and len({piece.group for piece in pieces}) == 1
    assert pieces[0].group and not short.group


def test_buckets_without_a_client_are_one_line() -> None:
    with pytest.raises(StorageError, match="no client for this kind of bucket"):
        texts("nosuch://bucket/a.txt")


def test_jsonl_and_the_line_of_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "One.\r\n\r\nStill one."}, {"text": "Two."}, {"body": "Three."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    assert texts(path) == ["One.\nStill one.", "Two."]
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(rows[2]) + "\n")
    with pytest.raises(DataError, match="line 3: has no text in field 'text'"):
        texts(path)
    path.write_text('{"text": "a"}\n{"text": \n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2: is not a JSON object"):
        texts(path)
    path.write_text(json.dumps({"text": "a\0b\nfine"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="control characters"):
        texts(path)
    assert texts(path, on_bad_text="skip") == ["fine"]


def test_parquet_and_wrong_schema(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"Text {i}." for i in range(10)], "n": list(range(10))})
    parquet.write_table(table, path, row_group_size=3)
    assert texts(path) == [f"Text {i}." for i in range(10)]
    with pytest.raises(DataError, match="no column 'body', only"):
        texts(path, field="body")
    with pytest.raises(DataError, match="not text"):
        texts(path, field="n")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a complete Parquet"):
        texts(path)


def test_sources_in_a_bucket() -> None:
    import fsspec

    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    bucket = fsspec.filesystem("memory")
    bucket.pipe_file("/sources/a.txt", TEXT.encode())
    bucket.pipe_file("/sources/b.txt.gz", gzip.compress(TEXT.encode()))
    bucket.pipe_file("/sources/c.jsonl", json.dumps({"text": "One."}).encode())
    with bucket.open("/sources/d.parquet", "wb") as file:
        parquet.write_table(pyarrow.table({"text": ["Two."]}), file)
    assert texts("memory://sources/*") == [*DOCUMENTS, *DOCUMENTS, "One.", "Two."]
    with pytest.raises(DataError, match="no such file"):
        texts("memory://sources/*.none")


def test_tfrecord_checksums_find_every_flip(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    example = _example("text", b"Some text." * 300)
    path.write_bytes(_record(example) + _record(_example("text", b"More.")))
    part = Part("tfrecord", str(path), 0, -1, 1)
    found = list(tfrecord_texts(part, "text"))
    assert [text for _, text in found] == ["Some text." * 300, "More."]
    whole = path.read_bytes()
    for place in range(0, len(whole), 131):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="record [01]: is damaged"):
            list(tfrecord.records(str(path)))
    path.write_bytes(whole[:-5])
    with pytest.raises(DataError, match="record 1: is damaged or cut off"):
        list(tfrecord.records(str(path)))
    path.write_bytes(whole)
    with pytest.raises(DataError, match="no text in field 'body'"):
        list(tfrecord_texts(part, "body"))


def test_tfds_set_made_here_and_read_without_tensorflow(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    folder = tfds_builder.write([str(plain)], str(tmp_path / "sets"))
    assert sorted(texts(f"tfds:{folder}")) == sorted(DOCUMENTS)
    assert len(texts(f"tfds:{folder}:train[1:]")) == len(DOCUMENTS) - 1
    found = hub_datasets.load_records(f"tfds:{folder}:train")
    assert sorted(str(record.fields["text"]) for record in found) == sorted(DOCUMENTS)
    for split, message in (("test", "no split 'test'"), ("train[x]", "cannot be loaded")):
        with pytest.raises(AlbertError, match=message):
            texts(f"tfds:{folder}:{split}")
    with pytest.raises(DataError, match="no text in field"):
        texts(f"tfds:{folder}", field="body")
    with pytest.raises(DataError, match="holds a set already"):
        tfds_builder.write([str(plain)], str(tmp_path / "sets"))
    assert "tensorflow" not in sys.modules


def test_tfds_set_of_tfrecord_files(plain: Path, tmp_path: Path) -> None:
    """The same set as files of the older format, which only TensorFlow writes: made by hand."""
    pytest.importorskip("tensorflow_datasets")
    from array_record.python import array_record_module

    folder = Path(tfds_builder.write([str(plain)], str(tmp_path / "sets")))
    info = json.loads((folder / "dataset_info.json").read_text())
    (source,) = folder.glob("*.array_record-*")
    reader = array_record_module.ArrayRecordReader(str(source))
    examples = reader.read_all()
    reader.close()
    target = folder / source.name.replace(".array_record-", ".tfrecord-")
    target.write_bytes(b"".join(map(_record, examples)))
    source.unlink()
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    assert sorted(texts(f"tfds:{folder}")) == sorted(DOCUMENTS)
    with pytest.raises(DataError, match="no text in field 'body'"):
        texts(f"tfds:{folder}", field="body")
    target.write_bytes(target.read_bytes()[:-3])
    with pytest.raises(DataError, match="is damaged or cut off"):
        texts(f"tfds:{folder}")
    assert "tensorflow" not in sys.modules


class _Columns:
    """The part of a Hugging Face dataset that we use."""

    def __init__(self, **columns: list) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.data = types.SimpleNamespace(nbytes=1000)
        names = types.SimpleNamespace(names=["negative", "positive"])
        self.features = {name: names if name == "label" else None for name in columns}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, list]:
        return {name: values[rows] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[dict]:
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None, str]]:
    """Stands for the `datasets` package; what has been loaded of it."""
    loaded: list[tuple[str, str | None, str]] = []
    configs = {
        str(tmp_path / "csv"): {None},
        "some/set": {None},
        "glue": {"sst2"},
        "wikimedia/wikipedia": {"20231101.en"},
    }

    def load_dataset(name: str, config: str | None = None, *, split: str) -> _Columns:
        if config not in configs.get(name, ()):
            raise ValueError(f"no {name}\nwith {config}")
        loaded.append((name, config, split))
        many = [*DOCUMENTS] * 500
        return _Columns(text=many, body=[None] * len(many), label=[0, 1, -1] * 500)

    def load_from_disk(folder: str) -> dict[str, _Columns]:
        if Path(folder).name == "csv":
            raise FileNotFoundError("neither a Dataset directory nor a DatasetDict directory")
        return {"train": _Columns(text=["On disk."])}

    stub = types.SimpleNamespace(
        load_dataset=load_dataset,
        load_from_disk=load_from_disk,
    )
    monkeypatch.setitem(sys.modules, "datasets", stub)
    return loaded


@pytest.mark.parametrize(
    ("spec", "loaded"),
    [
        ("hf:some/set", ("some/set", None, "train")),
        ("hf:some/set:test[:10%]", ("some/set", None, "test[:10%]")),
        ("hf:glue/sst2:validation", ("glue", "sst2", "validation")),
        ("hf:wikimedia/wikipedia/20231101.en", ("wikimedia/wikipedia", "20231101.en", "train")),
    ],
)
def test_hugging_face_datasets_and_their_configs(hub, spec, loaded) -> None:  # noqa: ANN001
    parts = sources.parts([spec], ReadOptions(), part_bytes=100)
    assert len(parts) > 5
    found = [d.text for p in parts for d in sources.read(p, ReadOptions(), ReadCounts())]
    assert found == DOCUMENTS * 500
    records = hub_datasets.load_records(spec)
    assert [r.fields["label"] for r in records[:3]] == ["negative", "positive", None]
    assert hub == [loaded], "the dataset is loaded once"


def test_folders_are_read_by_the_hugging_face_library(hub: list, tmp_path: Path) -> None:
    assert texts(f"hf:{tmp_path}") == ["On disk."]
    (tmp_path / "csv").mkdir()
    assert texts(f"hf:{tmp_path}/csv:test") == DOCUMENTS * 500


def test_hugging_face_datasets_that_cannot_be_read(hub: list, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'other', only"):
        texts("hf:some/set", field="other")
    with pytest.raises(DataError, match="record 0: has no text in field 'body'"):
        texts("hf:some/set", field="body")
    with pytest.raises(DataError, match=r"hf:no/set: cannot be loaded \(no no/set with None\)"):
        texts("hf:no/set")
    with pytest.raises(DataError, match=r"cannot be loaded \(no wikimedia/wikipedia with 2\)"):
        texts("hf:wikimedia/wikipedia/2")
    with pytest.raises(DataError, match="cannot be loaded"):
        texts(f"hf:{tmp_path}:test")
    for malformed in ("hf:", "hf:some/set:", "tfds::train"):
        with pytest.raises(ConfigError, match=r"write tfds:NAME\[/CONFIG\]\[:SPLIT\] or hf:"):
            texts(malformed)


@pytest.mark.parametrize(
    ("spec", "module", "fix"),
    [
        ("hf:some/set", "datasets", "pip install datasets"),
        ("tfds:some/set", "tensorflow_datasets",
         r"pip install -e '\.\[tfds\]' in the checkout, or pip install tensorflow-datasets"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_installed_is_named(
    spec: str, module: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for read in (texts, hub_datasets.load_records):
        with pytest.raises(ConfigError, match=f"{spec}: needs .*: {fix}") as caught:
            read(spec)
        assert "\n" not in str(caught.value)


def test_a_hugging_face_set_saved_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    data = datasets.Dataset.from_dict({"text": DOCUMENTS, "n": [1, 2, 3]})
    data.save_to_disk(str(tmp_path / "plain"))
    assert texts(f"hf:{tmp_path / 'plain'}") == DOCUMENTS
    datasets.DatasetDict({"test": data}).save_to_disk(str(tmp_path / "splits"))
    assert texts(f"hf:{tmp_path / 'splits'}:test") == DOCUMENTS
    with pytest.raises(DataError, match="cannot be loaded"):
        texts(f"hf:{tmp_path / 'splits'}")


def test_rows_of_ids(tmp_path: Path) -> None:
    matrix = tmp_path / "m.npy"
    np.save(matrix, np.arange(70).reshape(2, 35))
    found = list(sources.documents([f"ids:{matrix}"], ReadOptions(unit_tokens=16)))
    assert [d.ids.tolist() for d in found] == [list(range(35)), list(range(35, 70))]  # type: ignore[union-attr]
    assert found[0].lengths.tolist() == [16, 16, 3]  # type: ignore[union-attr]
    vector = tmp_path / "v.npy"
    np.save(vector, np.arange(10))
    with pytest.raises(DataError, match="v.bounds.npy"):
        list(sources.documents([f"ids:{vector}"]))
    np.save(tmp_path / "v.bounds.npy", np.array([0, 4, 10]))
    assert [len(d.ids) for d in sources.documents([f"ids:{vector}"])] == [4, 6]  # type: ignore[arg-type]
    np.save(matrix, np.zeros((2, 2)))
    with pytest.raises(DataError, match="must hold integers"):
        list(sources.documents([f"ids:{matrix}"]))
    matrix.write_bytes(matrix.read_bytes()[:100])
    with pytest.raises(DataError, match="not a complete npy"):
        list(sources.documents([f"ids:{matrix}"]))


def _record(data: bytes) -> bytes:
    head = len(data).to_bytes(8, "little")
    crc = [tfrecord.masked_crc32c(part).to_bytes(4, "little") for part in (head, data)]
    return head + crc[0] + data + crc[1]


def _example(name: str, value: bytes) -> bytes:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + wire.encode_varint(len(content)) + content

    feature = field(1, field(1, value))
    return field(1, field(1, field(1, name.encode()) + field(2, feature)))
