"""Local files for files.py: complete writes, renames, and the refusal of pipes and devices."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def require_regular(path: str) -> None:
    """Raises OSError for a pipe, socket or device, whose reading may never end.

    A folder is left to the error of whoever opens it, and so is a path without anything.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.ESPIPE, "a pipe or device where a file is needed", path)


def move(source: str, target: str) -> None:
    """Moves a file, a link or a folder with the folders above its target.

    Between two disks, whatever a link in the path leads to, it is copied first and deleted only
    when the copy is complete.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        is_folder = os.path.isdir(source) and not os.path.islink(source)
        if is_folder:
            shutil.copytree(source, temporary, symlinks=True)
        else:
            shutil.copy2(source, temporary, follow_symlinks=False)
        os.rename(temporary, target)
        if is_folder:
            shutil.rmtree(source)
        else:
            os.unlink(source)


def write(path: str, mode: str, data: bytes | memoryview) -> None:
    """Writes a file that survives a power cut; a file that cannot be written does not stay."""
    with open(path, mode) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            _unlink(path)
            raise


def sync_folder(path: str) -> None:
    """Flushes a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems refuse this; the rename itself has happened.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def renamed_when_complete(path: str) -> Iterator[str]:
    """A temporary name beside `path`, which takes its place if the block succeeds."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        _unlink(temporary)
        raise


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def raise_unless_absent(error: OSError) -> None:
    """Argument of os.walk: any failure is an error but that of a folder deleted meanwhile."""
    if not isinstance(error, FileNotFoundError):
        raise error
