"""The local copy of a prepared folder in a bucket: rows are read at random, which wants a disk."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from albert_jax import files
from albert_jax.errors import DataError

MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)


def local_copy(directory: str) -> Path:
    """Copies a prepared folder from a bucket, unless that was done, and returns where it lies.

    The copy's name comes from the manifest, which holds the checksums of the shards, so a folder
    that was prepared anew is copied anew. Files appear whole, the manifest last: what was cut off
    goes on, and several processes of a machine may copy at once.

    Raises:
      DataError: there is no whole prepared folder.
      StorageError: the bucket does not answer, or the disk is full.
    """
    manifest = files.read(files.join(directory, MANIFEST))
    if manifest is None:
        raise DataError(
            f"{directory} holds no {MANIFEST}: prepare it with `albert-jax data prepare --out "
            f"{directory}`, or let that command finish"
        )
    folder = Path(files.cache_folder("data", hashlib.sha256(manifest).hexdigest()[:16]))
    if (folder / MANIFEST).is_file():
        return folder
    sizes = files.file_sizes(directory)
    wanted = {
        name: size
        for name, size in sizes.items()
        if name != MANIFEST and not name.startswith(("work/", "."))
    }
    there = files.file_sizes(str(folder))
    left = {name: size for name, size in wanted.items() if there.get(name) != size}
    total, done = sum(left.values()), 0
    for name, size in left.items():
        _log.info("copying %s to %s: %d of %d MB", directory, folder, done >> 20, total >> 20)
        files.download(files.join(directory, name), files.join(str(folder), name))
        done += size
    files.write(str(folder / MANIFEST), manifest)
    return folder
