"""The one small room through which all files of a run go, on a local disk or in a bucket.

It offers only what a bucket has: whole-object write, read, list, delete, create-if-absent.
There is no append, no rename of an object and no fsync behind the callers' backs: a write is
whole or absent (local: temporary name, fsync, rename; bucket: one put). A path with ``://``
is a bucket and goes through fsspec, the layer below ``etils.epath`` (``gs://`` needs gcsfs,
extra ``gcs``); everything else is a local path.

Every operating system error becomes a :class:`StorageError` of one line with path and mend.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from albert_jax.errors import StorageError

_CHUNK = 1 << 22

_UNFINISHED = re.compile(r".+\.[0-9a-f]{8}\.tmp")

_MENDS = {
    errno.ENOSPC: "free space there or choose another folder",
    errno.EDQUOT: "free space in your quota or choose another folder",
    errno.EFBIG: "raise the file size limit (ulimit -f) or choose another folder",
    errno.EACCES: "give this user the right to it or choose another folder",
    errno.EPERM: "give this user the right to it or choose another folder",
    errno.EROFS: "it is mounted read-only: choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
    errno.EISDIR: "it is a folder: name a file in it",
    errno.EEXIST: "a file stands where a folder is needed: choose another folder",
}


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns an OSError inside the block into a StorageError that names `path` and the mend."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error
    except Exception as error:
        # gcsfs answers refused requests with an exception of its own that is no OSError.
        if type(error).__module__.split(".")[0] in ("gcsfs", "google", "aiohttp", "botocore"):
            raise storage_error(path, error) from error
        raise


def storage_error(path: str, error: Exception) -> StorageError:
    """The one-line StorageError for a failed operation at `path`."""
    number = getattr(error, "errno", None)
    mend = _MENDS.get(number or 0, "see that the disk or bucket is there and reachable")
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return StorageError(f"{path}: {reason or type(error).__name__}; {mend}")


def is_bucket(path: str) -> bool:
    """Whether `path` names an object store (gs://, s3://) and not a local folder."""
    return "://" in path


def join(path: str, *parts: str) -> str:
    """`path` and `parts` joined by slashes."""
    return "/".join([path.rstrip("/") or "/", *parts])


def write(path: str, data: bytes | memoryview) -> None:
    """Writes a whole object, with its folders; readers see the old one or the new one.

    Raises:
      StorageError: the disk is full, the place is not writable, or a folder is a file.
    """
    with storage_errors(path):
        if is_bucket(path):
            bucket(path).pipe_file(path, bytes(data))
            return
        folder = os.path.dirname(path) or "."
        os.makedirs(folder, exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        _sync_folder(folder)


def upload(source: str, path: str) -> None:
    """Writes a whole local file as an object of a bucket.

    Raises:
      StorageError: the file cannot be read or the bucket refuses it.
    """
    with storage_errors(path):
        bucket(path).put_file(source, path)


def download(path: str, target: str) -> None:
    """Writes an object of a bucket as a whole local file, with its folders.

    Raises:
      StorageError: the bucket refuses it, or as :func:`write`.
    """
    temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
    with storage_errors(path):
        store = bucket(path)
        try:
            with storage_errors(target):
                os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
                store.get_file(path, temporary)
                os.replace(temporary, target)
        except BaseException:
            _unlink(temporary)
            raise


def cache_folder(*parts: str) -> str:
    """Where this user's copies of things that can be made again lie; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "albert_jax", *parts)


def create(path: str, data: bytes) -> bool:
    """Writes an object only if there is none; False if there is one already.

    Of several callers exactly one gets True (local: O_EXCL; gs://: a put that demands
    generation 0). A local reader may see the new file empty for a moment.

    Raises:
      StorageError: as :func:`write`.
    """
    with storage_errors(path):
        if is_bucket(path):
            try:
                bucket(path).pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            return True
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            _unlink(path)
            raise
        return True


def read(path: str) -> bytes | None:
    """The whole object, or None if there is none. Raises StorageError if it is unreadable."""
    with storage_errors(path):
        try:
            if is_bucket(path):
                return bucket(path).cat_file(path)
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def names(path: str) -> list[str]:
    """Sorted names of what lies directly in a folder; empty if there is no such folder."""
    with storage_errors(path):
        try:
            if is_bucket(path):
                store = bucket(path)
                found = store.ls(path, detail=False)
                base = store._strip_protocol(path).rstrip("/")
                return sorted({p.rstrip("/").rsplit("/", 1)[-1] for p in found} - {_tail(base), ""})
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []


def delete_unfinished(folder: str) -> None:
    """Deletes what killed writers of this module have left directly in a folder of a disk."""
    if is_folder(folder) and not is_bucket(folder):
        for name in names(folder):
            if _UNFINISHED.fullmatch(name):
                delete(join(folder, name))


def tree(path: str) -> dict[str, int]:
    """All files below a folder: path relative to it ("a/b") -> size in bytes, sorted."""
    with storage_errors(path):
        if is_bucket(path):
            store = bucket(path)
            base = store._strip_protocol(path).rstrip("/") + "/"
            found = store.find(path, detail=True)
            return {
                name.removeprefix(base): int(info["size"])
                for name, info in sorted(found.items())
                if name.startswith(base)
            }
        sizes: dict[str, int] = {}
        for folder, _, files in os.walk(path, onerror=_raise_unless_absent):
            for name in files:
                full = os.path.join(folder, name)
                sizes[os.path.relpath(full, path).replace(os.sep, "/")] = os.lstat(full).st_size
        return dict(sorted(sizes.items()))


def is_folder(path: str) -> bool:
    """Whether a folder (in a bucket: a prefix with objects) stands there."""
    with storage_errors(path):
        if is_bucket(path):
            return bool(bucket(path).isdir(path))
        return os.path.isdir(path) and not os.path.islink(path)


def sha256(path: str, *, sync: bool = False) -> str:
    """Hex SHA-256 of an object, read in chunks; `sync` also brings a local file to the disk.

    Raises:
      StorageError: it is absent or unreadable.
    """
    digest = hashlib.sha256()
    with storage_errors(path):
        if is_bucket(path):
            with bucket(path).open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            return digest.hexdigest()
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if sync:
                os.fsync(file.fileno())
    return digest.hexdigest()


def delete(path: str) -> None:
    """Deletes one object; no error if there is none."""
    with storage_errors(path):
        if is_bucket(path):
            try:
                bucket(path).rm_file(path)
            except FileNotFoundError:
                return
        else:
            _unlink(path)


def delete_tree(path: str) -> None:
    """Deletes a folder with all that is in it; no error if there is none."""
    with storage_errors(path):
        try:
            if is_bucket(path):
                bucket(path).rm(path, recursive=True)
            else:
                shutil.rmtree(path)
        except FileNotFoundError:
            return


def move_tree(source: str, target: str) -> None:
    """Moves a folder (local: one rename; bucket: all objects copied, then deleted).

    Cut off in a bucket it can be called again: copies are repeated, nothing is lost.
    """
    with storage_errors(target):
        if not is_bucket(source):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(source, target)
            return
        store = bucket(source)
        for name in tree(source):
            store.cp_file(join(source, name), join(target, name))
        delete_tree(source)


def make_folder(path: str) -> None:
    """Makes a local folder with its parents (a bucket needs none) and tries that it takes files.

    Raises:
      StorageError: it cannot be made or written.
    """
    probe = join(path, f".write-test-{uuid.uuid4().hex[:8]}")
    write(probe, b"")
    delete(probe)


def free_bytes(path: str) -> int | None:
    """Bytes free on the disk of a local folder; None in a bucket, which has no end."""
    if is_bucket(path):
        return None
    with storage_errors(path):
        return shutil.disk_usage(path).free


def bucket(path: str) -> Any:
    """The client of a bucket (an fsspec file system); raises StorageError where there is none."""
    import fsspec

    try:
        store, _ = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"{path}: no client for this kind of bucket ({error}); "
            "pip install 'albert-jax[gcs]' for gs://"
        ) from error
    # Other processes write there too: a remembered listing would hide their objects.
    store.invalidate_cache()
    return store


def _tail(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse it; the rename itself has happened
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
