"""A prepared folder: how it is read, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import resource

import numpy as np
import pytest

from albert_jax import cli, files
from albert_jax.data.corpus.corpus import Corpus, check_vocabulary
from albert_jax.errors import DataError, StorageError
from tests.data.made import IdVocabulary, documents


def test_windows_are_numbered_over_the_shards(prepared, small_windows):
    docs = documents(60)
    corpus = pickle.loads(pickle.dumps(prepared(docs)))
    every = range(corpus.num_windows)
    assert corpus.ids(every).tolist() == np.concatenate([ids for ids, _ in docs]).tolist()
    parts, sentences = corpus.lengths(every)
    assert sentences.tolist() == np.concatenate([lengths for _, lengths in docs]).tolist()
    assert parts.sum() == len(sentences) and corpus.num_documents == 60
    assert corpus.tokens_in(every) == corpus.num_tokens == len(corpus.ids(every))
    last = corpus.num_windows - 1
    assert corpus.ids([last, 0]).tolist() == [*corpus.ids([last]), *corpus.ids([0])]


def test_folders_that_are_refused(prepared, tmp_path):
    corpus = prepared()
    manifest = tmp_path / "prepared" / "manifest.json"
    whole = json.loads(manifest.read_text())

    def refused(match, **changes):
        manifest.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(DataError, match=match):
            Corpus.open(corpus.directory)

    refused("its format is not 1", format=2)
    refused("an entry is missing or wrong", splits=None)
    refused("has no text in split 'train'", splits={"test": []})
    refused("an entry is missing or wrong .'name'", splits={"train": [{}]})
    manifest.write_text("{")
    with pytest.raises(DataError, match="manifest.json cannot be used: it is not JSON"):
        Corpus.open(corpus.directory)
    manifest.unlink()
    with pytest.raises(DataError, match="has no manifest.json"):
        Corpus.open(corpus.directory)


def _index(corpus, suffix, change):
    """Replaces an array of the index, and its size and checksum in the manifest, as anyone can."""
    folder, manifest = (
        corpus.directory,
        json.loads((corpus.directory / "manifest.json").read_text()),
    )
    name = f"train-0{suffix}"
    array = change(np.load(folder / name).copy())
    np.save(folder / name, array, allow_pickle=array.dtype == object)
    described = manifest["splits"]["train"][0]["files"][name]
    described["bytes"] = (folder / name).stat().st_size
    described["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _set(row, column, value):
    def change(array):
        array[row, column] = value
        return array

    return change


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".windows.npy", _set(0, 2, 10**15)),
        (".windows.npy", _set(0, 0, -5)),
        (".windows.npy", _set(0, 1, 2**62)),
        (".windows.npy", lambda a: a.astype("<i4")),
        (".windows.npy", lambda a: a[:, :3]),
        (".windows.npy", lambda a: np.concatenate([a, a])),
        (".windows.npy", lambda a: np.array([{}], object)),
        (".documents.npy", lambda a: a[:-1]),
        (".documents.npy", lambda a: a + 60_000),
        (".sentences.npy", lambda a: a.astype("<f8")),
        (".sentences.npy", lambda a: a[None]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_index_whose_numbers_lie(prepared, suffix, change):
    corpus = prepared()
    _index(corpus, suffix, change)
    with pytest.raises(DataError, match="shard .* is damaged: .*index"):
        Corpus.open(corpus.directory)


@pytest.mark.parametrize("size", [10**12, 0, -1, "120", True, None])
def test_a_vocabulary_size_that_lies(prepared, size):
    corpus = prepared()
    path = corpus.directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": size}))
    with pytest.raises(DataError, match="vocab_size is not 1 to"):
        Corpus.open(corpus.directory)


def test_a_shard_elsewhere_and_a_pipe(prepared):
    corpus = prepared()
    path = corpus.directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"][0]["name"] = "../prepared/train-0"
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="names a shard elsewhere"):
        Corpus.open(corpus.directory)
    os.mkfifo(corpus.directory / "unigram.npy")
    with pytest.raises(DataError, match="unigram.npy cannot be read"):
        _ = corpus.unigram


def test_another_vocabulary_is_refused(prepared):
    corpus = prepared()
    check_vocabulary(corpus, IdVocabulary())
    with pytest.raises(DataError, match="prepared with vocabulary aaaaaaaaaaaa .* not with bbbb"):
        check_vocabulary(corpus, IdVocabulary("b" * 64))


def test_unigram_counts_are_checked(prepared):
    corpus = prepared()
    with pytest.raises(DataError, match="unigram.npy cannot be read"):
        _ = corpus.unigram
    path = corpus.directory / "unigram.npy"
    np.save(path, np.zeros(3, np.int64))
    corpus._unigram_sha256 = files.sha256(str(path))
    with pytest.raises(DataError, match="unigram.npy cannot be read"):
        _ = corpus.unigram
    np.save(path, np.arange(120))
    corpus._unigram_sha256 = files.sha256(str(path))
    assert corpus.unigram.tolist() == list(range(120))
    corpus._unigram_sha256 = "0" * 64
    with pytest.raises(DataError, match="unigram.npy cannot be read"):
        _ = corpus.unigram


@pytest.fixture
def few_open_files():
    """A soft limit on open files that is below the hard one."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1] - 1), limits[1]))
    yield resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_only_the_command_line_raises_the_limit_of_open_files(prepared, few_open_files):
    prepared()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == few_open_files
    assert cli.main(["--version"]) == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > few_open_files[0]


def test_too_many_open_files_are_named_with_a_fix(prepared, monkeypatch):
    corpus = prepared()

    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(StorageError, match="Too many open files; raise .*ulimit -n"):
        Corpus.open(corpus.directory)
