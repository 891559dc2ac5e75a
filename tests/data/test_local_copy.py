"""Prepared folders in a bucket (here one in memory): copied once, whole or not at all."""

from __future__ import annotations

import fsspec
import pytest

from albert_jax import files
from albert_jax.data.corpus.corpus import WORK_FOLDER, Corpus
from albert_jax.errors import DataError, StorageError
from tests.data.made import documents

BUCKET = "memory://bucket/data"


@pytest.fixture
def in_bucket(prepared, tmp_path, monkeypatch):
    """(the same documents in a local folder, in a bucket), with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    corpus = prepared(documents(40))
    folder = str(corpus.directory)
    for name in files.file_sizes(folder):
        files.write(files.join(BUCKET, name), files.read(files.join(folder, name)) or b"")
    yield corpus
    files.delete_tree("memory://bucket")


def test_the_copy_reads_as_the_folder(in_bucket):
    files.write(files.join(BUCKET, WORK_FOLDER, "plan.json"), b"{}")
    copy = Corpus.open(BUCKET)
    every = range(copy.num_windows)
    assert copy.ids(every).tolist() == in_bucket.ids(every).tolist()
    assert set(files.file_sizes(str(copy.directory))) == set(
        files.file_sizes(str(in_bucket.directory))
    )


def test_what_was_cut_off_goes_on_and_what_is_whole_stays(in_bucket, monkeypatch):
    store = fsspec.filesystem("memory")
    fetched, get_file = [], type(store).get_file

    def watched(self, remote, local, **options):
        fetched.append(remote)
        if len(fetched) == 2:
            raise OSError(28, "No space left on device")
        return get_file(self, remote, local, **options)

    monkeypatch.setattr(type(store), "get_file", watched)
    with pytest.raises(StorageError, match="free space"):
        Corpus.open(BUCKET)
    first = fetched[0]
    Corpus.open(BUCKET)
    assert fetched.count(first) == 1
    count = len(fetched)
    Corpus.open(BUCKET)
    assert len(fetched) == count


def test_a_copy_that_lost_its_end_is_made_again(in_bucket):
    """As a power cut leaves it: the name is there, not all of the bytes, and no manifest."""
    folder = Corpus.open(BUCKET).directory
    (folder / "manifest.json").unlink()
    shard = next(folder.glob("train-*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-1])
    copy = Corpus.open(BUCKET)
    every = range(copy.num_windows)
    assert copy.ids(every).tolist() == in_bucket.ids(every).tolist()


def test_a_damaged_copy_is_named_and_made_again_once_it_is_deleted(in_bucket):
    folder = Corpus.open(BUCKET).directory
    shard = next(folder.glob("train-*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"delete {folder}, and it is copied from the bucket again"):
        Corpus.open(BUCKET)
    files.delete_tree(str(folder))
    every = range(in_bucket.num_windows)
    assert Corpus.open(BUCKET).ids(every).tolist() == in_bucket.ids(every).tolist()


def test_a_bucket_without_a_prepared_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match="memory://nothing holds no manifest.json"):
        Corpus.open("memory://nothing")
