"""A local copy of a prepared folder in a bucket, because training reads rows in random order."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from albert_jax import files
from albert_jax.errors import DataError

MANIFEST = "manifest.json"
_log = logging.getLogger(__name__)


def local_copy(directory: str) -> Path:
    """Copies a prepared folder from a bucket, unless a copy exists, and returns the copy.

    The copy is named after the manifest, which holds the checksums of the shards, so a folder
    that was prepared anew is copied anew. Files appear complete and the manifest last, so an
    interrupted copy continues, and several processes of a machine may copy at once.

    Raises:
      DataError: The bucket holds no complete prepared folder there.
      StorageError: The bucket does not answer, or the disk is full.
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
    copied = files.file_sizes(str(folder))
    missing = {
        name: size
        for name, size in files.file_sizes(directory).items()
        if name != MANIFEST and not name.startswith(("work/", ".")) and copied.get(name) != size
    }
    total, done = sum(missing.values()), 0
    for name, size in missing.items():
        _log.info("copying %s to %s: %d of %d MB", directory, folder, done >> 20, total >> 20)
        files.download(files.join(directory, name), files.join(str(folder), name))
        done += size
    files.write(str(folder / MANIFEST), manifest)
    return folder
