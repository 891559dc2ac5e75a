"""Shards: what is written is read back, in the same bytes; damage is named."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from albert_jax.data.corpus import shard_writer
from albert_jax.data.corpus.shard_writer import ShardWriter
from albert_jax.data.corpus.shards import ShardReader
from albert_jax.errors import DataError, StorageError
from tests.data.made import add_documents


def write(folder, docs, vocab_size=120, at_once=False):
    with ShardWriter(folder, "s", vocab_size) as writer:
        if at_once:
            ids, lengths = map(np.concatenate, zip(*docs, strict=True))
            writer.add_many(ids, lengths, np.array([len(lengths) for _, lengths in docs]))
        else:
            add_documents(writer, docs)
        return writer.close()


def random_documents(sizes, vocab_size=120):
    rng = np.random.default_rng(0)
    return [(rng.integers(0, vocab_size, sum(size)), np.array(size)) for size in sizes]


@pytest.mark.parametrize("vocab_size", [120, 65536, 65537, 200_000])
def test_documents_come_back(tmp_path, monkeypatch, vocab_size):
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 50)
    sizes = [[3, 4], [7], [20, 20, 5], [1] * 30, [10, 10, 10, 10, 9]]
    docs = random_documents(sizes, vocab_size)
    entry = write(tmp_path, docs, vocab_size)
    reader = pickle.loads(pickle.dumps(ShardReader(tmp_path, entry, vocab_size)))
    windows = range(entry["windows"])
    ids = [reader.ids(window) for window in windows]
    assert np.concatenate(ids).tolist() == np.concatenate([ids for ids, _ in docs]).tolist()
    assert [len(part) for part in ids] == reader.windows[:, 2].tolist()
    assert max(map(len, ids)) <= 50
    parts, sentences = map(np.concatenate, zip(*map(reader.lengths, windows), strict=True))
    assert sentences.tolist() == sum(sizes, [])
    assert parts.tolist() == [len(size) for size in sizes]
    assert (entry["documents"], entry["tokens"]) == (5, sum(map(sum, sizes)))
    assert sorted(entry["files"]) == sorted(path.name for path in tmp_path.iterdir())


def test_long_documents_are_cut_between_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 10)
    entry = write(tmp_path, random_documents([[4, 4, 4, 8, 3], [25], [2]]))
    reader = ShardReader(tmp_path, entry, 120)
    assert reader.tokens_per_sentence.tolist() == [4, 4, 4, 8, 3, 10, 10, 5, 2]
    assert reader.sentences_per_part.tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
    assert (entry["documents"], entry["pieces"]) == (3, 8)


def test_bytes_do_not_depend_on_the_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "WINDOW_TOKENS", 60)
    docs = random_documents([[3, 0, 4], [7], [0], [20, 20, 5], [100, 3], [1] * 30])
    one, all_ = write(tmp_path / "one", docs), write(tmp_path / "all", docs, at_once=True)
    assert one == all_
    assert one["sentences"] == 2 + 1 + 3 + 3 + 30 and one["documents"] == 5


def test_nothing_is_left_by_an_error(tmp_path):
    with pytest.raises(DataError, match=r"s, documents from 0 on: token id 120 .* of 120"):
        write(tmp_path, [(np.array([120]), np.array([1]))])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder"):
        write(tmp_path / "file", [])


def test_damage_is_named(tmp_path):
    entry = write(tmp_path, random_documents([[20] * 50] * 30))
    for name in entry["files"]:
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(DataError, match=f"{name} has {len(whole) - 1} bytes instead of"):
            ShardReader(tmp_path, entry, 120)
        path.unlink()
        with pytest.raises(DataError, match=f"{name} is missing"):
            ShardReader(tmp_path, entry, 120)
        path.write_bytes(whole)


def test_a_flipped_bit_is_noticed(tmp_path):
    entry = write(tmp_path, random_documents([[20] * 50] * 30))

    def read():
        return ShardReader(tmp_path, entry, 120).ids(0).tolist()

    ids = read()
    rng = np.random.default_rng(0)
    for name in entry["files"]:
        path = tmp_path / name
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 5).tolist():
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))])
                + whole[place + 1 :]
            )  # fmt: skip
            try:  # The records hold all that is read of their file, which has other bytes too.
                assert read() == ids and name.endswith("array_record")
            except DataError as error:
                assert "damaged" in str(error)
        path.write_bytes(whole)


def test_a_changed_record_is_named_when_it_is_read(tmp_path):
    entry = write(tmp_path, random_documents([[20] * 50] * 300))
    path = tmp_path / "s.array_record"
    content = bytearray(path.read_bytes())
    content[300_000] ^= 4
    path.write_bytes(content)
    reader = ShardReader(tmp_path, entry, 120)
    found = []
    for number in range(entry["windows"]):
        try:
            reader.ids(number)
        except DataError as error:
            found.append(str(error))
    assert len(found) == 1 and f"{tmp_path / 's'} is damaged: record 2 " in found[0]


def test_ids_above_the_vocabulary_are_refused(tmp_path):
    entry = write(tmp_path, random_documents([[20] * 5], 500), vocab_size=500)
    with pytest.raises(DataError, match=r"s, record 0: token id \d+ is outside the vocabulary"):
        ShardReader(tmp_path, entry, 120).ids(0)


def test_bytes_stay_what_they_are(tmp_path):
    entry = write(tmp_path, random_documents([[3, 4], [7], [20, 20, 5]]))
    record = ShardReader(tmp_path, entry, 120).ids(0).tobytes()
    assert hashlib.sha256(record).hexdigest()[:16] == "7f0f36d23dd3f487"
