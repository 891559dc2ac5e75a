"""All file I/O of a run, on local disk or object storage.

The functions of this module offer only what a bucket has: whole objects are written, read, listed,
deleted and created if absent. A write either happens completely or not at all (local: temporary
name, fsync, rename; bucket: one put). A path with ``://`` is a bucket and goes through fsspec
(``gs://`` needs gcsfs, extra ``gcs``); every other path is local.

Every error of the operating system or of a bucket's client is raised as a StorageError of one line
that names the path and how to fix it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from albert_jax import local_disk
from albert_jax.errors import CheckpointError, ConfigError, StorageError

_TEMPORARY = re.compile(r".+\.[0-9a-f]{8}\.tmp")

_BUCKET_CLIENTS = ("gcsfs", "google", "aiohttp", "botocore")

_FIXES = {
    errno.ENOSPC: "free space there or choose another folder",
    errno.EDQUOT: "free space in your quota or choose another folder",
    errno.EFBIG: "raise the file size limit (ulimit -f) or choose another folder",
    errno.EACCES: "give this user the right to it or choose another folder",
    errno.EPERM: "give this user the right to it or choose another folder",
    errno.EROFS: "it is mounted read-only: choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
    errno.EISDIR: "it is a folder: name a file in it",
    errno.ESPIPE: "name a regular file",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EEXIST: "a file is where a folder is needed: choose another folder",
}


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError about `path`."""
    try:
        yield
    except Exception as error:
        # Clients of buckets answer refused requests with exceptions that are not an OSError.
        client = type(error).__module__.split(".")[0] in _BUCKET_CLIENTS
        if client or isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise


def storage_error(path: str, error: Exception) -> StorageError:
    """The one-line StorageError for a failed operation at `path`."""
    number = getattr(error, "errno", None)
    fix = _FIXES.get(number or 0, "check that the disk or bucket exists and is reachable")
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return StorageError(f"{path}: {reason or type(error).__name__}; {fix}")


def is_bucket(path: str) -> bool:
    """Returns whether `path` names an object store (gs://, s3://) and not a local folder."""
    return "://" in path


def bucket_client(path: str) -> Any:
    """The fsspec file system of a bucket. Raises StorageError if no client is installed for it."""
    import fsspec

    try:
        client, _ = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{path}: no client for this kind of bucket ({error}); "
            "pip install gcsfs for gs://, s3fs for s3://"
        ) from error
    # A cached listing would hide the objects that other processes write.
    client.invalidate_cache()
    return client


def join(path: str, *parts: str) -> str:
    """`path` and `parts` joined by slashes."""
    return "/".join([path.rstrip("/") or "/", *parts])


def absolute(path: str) -> str:
    """The absolute path of a local file or folder that exists; any other name as it is."""
    return os.path.abspath(path) if os.path.exists(path) else path


def cache_folder(*parts: str) -> str:
    """The user's folder for copies that can be made again; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "albert_jax", *parts)


# ---- objects -------------------------------------------------------------------------------------


def write(path: str, data: bytes | memoryview) -> None:
    """Writes an object and the folders above it; readers see either the old or the new content."""
    with storage_errors(path):
        if is_bucket(path):
            bucket_client(path).pipe_file(path, bytes(data))
            return
        with local_disk.renamed_when_complete(path) as temporary:
            local_disk.write(temporary, "wb", data)
        local_disk.sync_folder(os.path.dirname(path) or ".")


def create_if_absent(path: str, data: bytes) -> bool:
    """Writes an object only if there is none; returns False if there is one already.

    Of several callers exactly one gets True (local: O_EXCL; gs://: a put that demands
    generation 0). A local reader may see the new file empty for a moment.
    """
    with storage_errors(path):
        try:
            if is_bucket(path):
                bucket_client(path).pipe_file(path, data, mode="create")
            else:
                folder = os.path.dirname(path) or "."
                if os.path.lexists(folder) and not os.path.exists(folder):
                    raise StorageError(
                        f"{folder} is a link to {os.readlink(folder)}, which is not there: make "
                        "that folder, or remove the link"
                    )
                os.makedirs(folder, exist_ok=True)
                local_disk.write(path, "xb", data)
        except FileExistsError:
            return False
        return True


def read(path: str, *, limit: int | None = None, stream: bool = False) -> bytes | None:
    """The complete object, or None if there is none.

    With a `limit` at most one byte more than that is read, so whoever checks the length has not
    loaded what it refuses. A local pipe or device is read only as a `stream`: a name that was
    meant for a file would otherwise wait for ever.
    """
    with storage_errors(path), suppress(FileNotFoundError):
        if is_bucket(path):
            end = None if limit is None else limit + 1
            return bucket_client(path).cat_file(path, end=end)
        if not stream:
            local_disk.require_regular(path)
        with open(path, "rb") as file:
            return file.read(-1 if limit is None else limit + 1)
    return None


def sha256(path: str, *, sync: bool = False) -> str:
    """The hexadecimal SHA-256 of an object; `sync` also flushes a local file to the disk."""
    with storage_errors(path):
        if is_bucket(path):
            with bucket_client(path).open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        local_disk.require_regular(path)
        with open(path, "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256")
            if sync:
                os.fsync(file.fileno())
            return digest.hexdigest()


def upload(source: str, path: str) -> None:
    """Writes a local file as an object of a bucket."""
    with storage_errors(path):
        bucket_client(path).put_file(source, path)


def download(path: str, target: str) -> None:
    """Writes an object of a bucket as a local file, with the folders above it."""
    with storage_errors(path):
        client = bucket_client(path)
        with storage_errors(target), local_disk.renamed_when_complete(target) as temporary:
            client.get_file(path, temporary)


def delete(path: str) -> None:
    """Deletes one object; it is not an error if there is none."""
    with storage_errors(path), suppress(FileNotFoundError):
        if is_bucket(path):
            bucket_client(path).rm_file(path)
        else:
            os.unlink(path)


# ---- folders -------------------------------------------------------------------------------------


def names(path: str) -> list[str]:
    """The sorted names of the entries of a folder; empty if there is no such folder."""
    with storage_errors(path), suppress(FileNotFoundError):
        if not is_bucket(path):
            return sorted(os.listdir(path))
        client = bucket_client(path)
        base = client._strip_protocol(path).rstrip("/").rsplit("/", 1)[-1]
        entries = client.ls(path, detail=False)
        return sorted({p.rstrip("/").rsplit("/", 1)[-1] for p in entries} - {base, ""})
    return []


def file_sizes(path: str) -> dict[str, int]:
    """All files below a folder: path relative to it ("a/b") -> size in bytes, sorted by path."""
    with storage_errors(path):
        if is_bucket(path):
            client = bucket_client(path)
            base = client._strip_protocol(path).rstrip("/") + "/"
            return {
                name.removeprefix(base): int(info["size"])
                for name, info in sorted(client.find(path, detail=True).items())
                if name.startswith(base)
            }
        sizes: dict[str, int] = {}
        for folder, _, entries in os.walk(path, onerror=local_disk.raise_unless_absent):
            for name in entries:
                full = os.path.join(folder, name)
                with suppress(FileNotFoundError):  # It was deleted meanwhile.
                    sizes[os.path.relpath(full, path).replace(os.sep, "/")] = os.lstat(full).st_size
        return dict(sorted(sizes.items()))


def is_folder(path: str) -> bool:
    """Returns whether `path` is a folder, or a link to one (in a bucket: has objects)."""
    with storage_errors(path):
        if is_bucket(path):
            return bool(bucket_client(path).isdir(path))
        return os.path.isdir(path)


def is_other(path: str) -> bool:
    """Returns whether a local name is taken, but not by a folder: file, pipe, dead link."""
    return not is_bucket(path) and os.path.lexists(path) and not os.path.isdir(path)


def make_folder(path: str) -> None:
    """Makes a folder with its parents and checks that it is writable."""
    probe = join(path, f".write-test-{uuid.uuid4().hex[:8]}")
    write(probe, b"")
    delete(probe)


def move_tree(source: str, target: str) -> None:
    """Moves a folder (local: one rename; bucket: all objects are copied, then deleted).

    In a bucket, or to another disk, an interrupted move can be repeated; nothing is lost.
    """
    with storage_errors(target):
        if not is_bucket(source):
            local_disk.move(source, target)
            return
        client = bucket_client(source)
        for name in file_sizes(source):
            client.cp_file(join(source, name), join(target, name))
        delete_tree(source)


def delete_tree(path: str) -> None:
    """Deletes a folder with its content; it is not an error if there is none.

    Of a local link the link alone is deleted: what it leads to may have other owners.
    """
    with storage_errors(path), suppress(FileNotFoundError):
        if is_bucket(path):
            bucket_client(path).rm(path, recursive=True)
        elif os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)


def delete_temporary_files(folder: str) -> None:
    """Deletes the temporary files that killed processes left directly in a local folder."""
    if is_folder(folder) and not is_bucket(folder):
        for name in names(folder):
            if is_temporary(name):
                delete(join(folder, name))


def is_temporary(name: str) -> bool:
    """Returns whether a file was being written by `write` when its process was killed."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def new_folder(out_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside the local `out_dir`, which it becomes when the block succeeds.

    Raises:
      ConfigError: `out_dir` is in a bucket.
      CheckpointError: `out_dir` exists already: nothing is ever overwritten.
      StorageError: The folder cannot be written, or the block fails to read a file.
    """
    if is_bucket(str(out_dir)):
        raise ConfigError(f"{out_dir}: give a local folder and copy it to the bucket afterwards")
    out = Path(os.path.abspath(out_dir))
    if os.path.lexists(out):
        raise CheckpointError(f"{out_dir} exists already: choose another name or remove it first")
    temporary = out.with_name(f".{out.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        os.rename(temporary, out)
        local_disk.sync_folder(str(out.parent))
    except OSError as error:
        # The error may be about a file that the block reads; a failed write (a full disk) names
        # no file, or one of the temporary folder.
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        elsewhere = path and not Path(path).is_relative_to(temporary)
        raise storage_error(path if elsewhere else str(out_dir), error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes small files, by their path, into a folder that is still being made."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
