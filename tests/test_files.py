"""Complete objects, exclusive creation, new folders and one-line errors; locally and in a bucket."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from albert_jax import files
from albert_jax.errors import StorageError
from albert_jax.files import new_folder


class _Bucket(MemoryFileSystem):
    """A store with a scheme of its own that has only what a bucket has."""

    protocol = "pretended"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("pretended://", "memory://"))


@pytest.fixture(params=["local", "bucket"])
def place(request, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    fsspec.register_implementation("pretended", _Bucket, clobber=True)
    return f"pretended://bucket{tmp_path}/run"


def test_objects_are_written_read_listed_and_deleted(place):
    path = files.join(place, "a", "b.json")
    assert files.read(path) is None
    assert files.names(files.join(place, "a")) == []
    files.write(path, b"one")
    files.write(path, b"two!")
    assert files.read(path) == b"two!"
    assert files.names(files.join(place, "a")) == ["b.json"]
    assert files.file_sizes(place) == {"a/b.json": 4}
    assert files.sha256(path, sync=True) == hashlib.sha256(b"two!").hexdigest()
    files.delete(path)
    files.delete(path)
    assert files.read(path) is None


def test_create_succeeds_once(place):
    path = files.join(place, "lock")
    won = []
    threads = [
        threading.Thread(
            target=lambda i=i: won.append((files.create_if_absent(path, b"%d" % i), i))
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [i for created, i in won if created]
    if files.is_bucket(place):  # the pretended one is not atomic between threads
        assert winners
    else:
        assert len(winners) == 1
    assert files.read(path) == b"%d" % winners[-1]
    assert not files.create_if_absent(path, b"late")
    assert files.read(path) == b"%d" % winners[-1]


def test_trees_move_and_go(place):
    for name in ("x", "d/y", "d/e/z"):
        files.write(files.join(place, "from", name), name.encode())
    files.move_tree(files.join(place, "from"), files.join(place, "deep", "to"))
    assert not files.is_folder(files.join(place, "from"))
    assert files.file_sizes(files.join(place, "deep", "to")) == {"d/e/z": 5, "d/y": 3, "x": 1}
    files.delete_tree(files.join(place, "deep"))
    files.delete_tree(files.join(place, "deep"))
    assert files.file_sizes(place) == {}


def test_no_bucket_client_is_one_line():
    with pytest.raises(StorageError, match="unknown-kind://x.*no client for this kind of bucket"):
        files.read("unknown-kind://x/y")


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(StorageError, match="run.*choose another folder") as caught:
        files.make_folder(str(tmp_path / "run" / "checkpoints"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    "number, fix",
    [
        (errno.ENOSPC, "free space"),
        (errno.EACCES, "right"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "reachable"),
    ],
)
def test_each_error_names_path_and_fix(number, fix, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=fix) as caught:
        files.write(str(tmp_path / "x"), b"data")
    assert str(tmp_path / "x") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_object(tmp_path):
    path = str(tmp_path / "x")
    files.write(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match="ulimit"):
            files.write(path, b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.read(path) == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_new_folder_appears_only_when_it_is_complete(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ValueError), new_folder(out) as folder:
        (folder / "half").write_bytes(b"x")
        raise ValueError
    assert os.listdir(tmp_path / "deep") == []
    with new_folder(out) as folder:
        (folder / "all").write_bytes(b"x")
        assert not out.exists()
    assert os.listdir(tmp_path / "deep") == ["out"] and os.listdir(out) == ["all"]


def test_an_error_in_a_new_folder_names_the_file_that_failed(tmp_path):
    """The error of an unreadable source does not name the folder that is being written."""
    out, source = tmp_path / "out", tmp_path / "source"
    with pytest.raises(StorageError, match=f"{source}: No such file"), new_folder(out):
        source.read_bytes()
    with pytest.raises(StorageError, match=f"{out}: Is a directory"), new_folder(out) as folder:
        folder.write_bytes(b"")
    with pytest.raises(StorageError, match=f"{out}: No space left"), new_folder(out):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_read_only_where_a_stream_is_meant(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    for read in (files.read, files.sha256):
        with pytest.raises(StorageError, match="pipe: a pipe or device .*; name a regular file"):
            read(path)
    with pytest.raises(StorageError, match="a pipe or device"):
        files.read("/dev/zero", limit=10)
    writer = threading.Thread(target=lambda: Path(path).write_bytes(b"text"))
    writer.start()
    assert files.read(path, stream=True) == b"text"
    writer.join()


def test_no_more_is_read_than_the_limit(place):
    path = files.join(place, "a")
    files.write(path, b"12345")
    assert files.read(path, limit=3) == b"1234"
    assert files.read(path, limit=5) == b"12345"


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("a")
    for target in ("kept", "nowhere"):
        (tmp_path / "link").symlink_to(tmp_path / target)
        files.delete_tree(str(tmp_path / "link"))
        assert not os.path.lexists(tmp_path / "link")
    assert (tmp_path / "kept" / "a").read_text() == "a"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_move_to_another_disk(tmp_path, monkeypatch, kind):
    """As if both were on two disks: only renames within a folder succeed."""
    rename = os.rename

    def within_a_folder(source, target):
        if os.path.dirname(source) != os.path.dirname(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", within_a_folder)
    source = tmp_path / "a"
    content = source / "b" if kind == "folder" else source
    content.parent.mkdir(exist_ok=True)
    content.write_text("text")
    files.move_tree(str(source), str(tmp_path / "x" / "y"))
    moved = tmp_path / "x" / "y"
    assert (moved / "b" if kind == "folder" else moved).read_text() == "text"
    assert not source.exists() and os.listdir(tmp_path / "x") == ["y"]
