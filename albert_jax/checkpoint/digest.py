"""What makes a step whole: a manifest with the SHA-256 of every file, and a note outside it.

``checkpoints/STEP/manifest.json`` is the last object written into a step, after Orbax's commit;
``whole/STEP`` holds the manifest's own digest and is written after it. No reader of Orbax's
formats notices a flipped bit in array data; with these two every changed, cut or missing byte
of a step is noticed before it is used.

Several processes share the reading: each writes the digests of its share as an object under
``shares/STEP/``, process 0 waits for all of them. No collective is involved, so the work may
run in a thread beside training.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from albert_jax import files
from albert_jax.errors import CheckpointError, StorageError

FORMAT = 1
"""Version of the layout of a step; a newer one is refused, never guessed."""

MANIFEST = "manifest.json"

_THREADS = min(4, os.cpu_count() or 1)
# What is read of a manifest before it is trusted: a step has tens of files.
_MANIFEST_BYTES = 16 << 20


@dataclass(frozen=True)
class Layout:
    """Where the parts of a run folder's checkpoints lie."""

    run_dir: str

    @property
    def checkpoints(self) -> str:
        """Folder of Orbax's steps."""
        return files.join(self.run_dir, "checkpoints")

    def step(self, step: int) -> str:
        """Folder of one step."""
        return files.join(self.checkpoints, str(step))

    def manifest(self, step: int) -> str:
        """The manifest inside a step."""
        return files.join(self.step(step), MANIFEST)

    def note(self, step: int) -> str:
        """The note that a step is whole."""
        return files.join(self.run_dir, "whole", str(step))

    def shares(self, step: int) -> str:
        """Folder of the digests that each process of a save contributes."""
        return files.join(self.run_dir, "shares", str(step))

    def retired(self, step: int) -> str:
        """The intent to delete a step, written before its deletion begins."""
        return files.join(self.run_dir, "retired", str(step))

    def noted_steps(self) -> list[int]:
        """Steps with a note, ascending."""
        return numbers(files.join(self.run_dir, "whole"))


def numbers(folder: str) -> list[int]:
    """The names in a folder that are step numbers, ascending."""
    return sorted(int(name) for name in files.names(folder) if is_step(name))


def is_step(name: str) -> bool:
    """Whether a name is a step number as Orbax writes it (ASCII, no leading zero)."""
    return name.isascii() and name.isdigit() and str(int(name)) == name


def digests(folder: str, index: int = 0, count: int = 1, *, sync: bool = False) -> dict[str, Any]:
    """Size and SHA-256 of every `count`-th file of a folder, the manifest itself excepted.

    Args:
      folder: a step.
      index: which share, 0 to count - 1, of the files in the order of their names.
      count: number of shares.
      sync: bring local files to the disk too, before anything vouches for them.

    Raises:
      StorageError: a file cannot be read.
    """
    sizes = files.file_sizes(folder)
    sizes.pop(MANIFEST, None)
    names = sorted(sizes)[index::count]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: files.sha256(files.join(folder, name), sync=sync), names)
        return {
            name: {"size": sizes[name], "sha256": digest}
            for name, digest in zip(names, found, strict=True)
        }


def write_share(layout: Layout, step: int, index: int, count: int) -> None:
    """Writes this process's share of a step's digests (only where there are several)."""
    share = digests(layout.step(step), index, count, sync=True)
    data = json.dumps(share, sort_keys=True).encode()
    files.write(files.join(layout.shares(step), f"{index}-of-{count}"), data)


def collect_shares(layout: Layout, step: int, count: int, timeout_seconds: float) -> dict[str, Any]:
    """All shares of a step's digests as one table; waits until every process wrote its own.

    Raises:
      StorageError: a share did not come in time (its process cannot write, or is gone).
    """
    deadline = time.monotonic() + timeout_seconds
    table: dict[str, Any] = {}
    for index in range(count):
        path = files.join(layout.shares(step), f"{index}-of-{count}")
        while (data := files.read(path)) is None:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{path}: process {index} wrote no digests of step {step} within "
                    f"{timeout_seconds:.0f} s; see that all processes write to the same folder"
                )
            time.sleep(0.2)
        table.update(json.loads(data))
    return table


def seal(layout: Layout, step: int, table: dict[str, Any], metrics: dict[str, float]) -> None:
    """Writes the manifest into a committed step and then the note that it is whole."""
    body = {"format": FORMAT, "step": step, "metrics": metrics, "files": table}
    manifest = _serialize(body)
    files.write(layout.manifest(step), manifest)
    write_note(layout, step, manifest)
    files.delete_tree(layout.shares(step))


def write_note(layout: Layout, step: int, manifest: bytes) -> None:
    """Writes ``whole/STEP``: the digest of the manifest, and nothing that needs one itself."""
    files.write(layout.note(step), _note(manifest))


def metrics_of(layout: Layout, step: int) -> dict[str, float]:
    """The numbers that a step was saved with; empty if its manifest cannot be read."""
    body = _parse(files.read(layout.manifest(step)))
    return body["metrics"] if body and isinstance(body.get("metrics"), dict) else {}


def fault(layout: Layout, step: int, manifest: bytes | None, note: bytes | None) -> str | None:
    """What is wrong with a step, in a few words that name the file; None if all of it fits.

    Args:
      layout: the run folder.
      step: which step.
      manifest: the manifest's bytes, None if there is none.
      note: the note's bytes, None if there is none (then the manifest stands for itself).

    Raises:
      CheckpointError: the step is intact but in a format that is newer than this program.
      StorageError: a file is there but cannot be read.
    """
    if manifest is None:
        return f"{MANIFEST} is gone"
    if note is not None and note != _note(manifest):
        return f"{MANIFEST} and whole/{step} do not agree"
    body = _parse(manifest)
    if body is None or body.get("step") != step:
        return f"{MANIFEST} cannot be read as the manifest of step {step}"
    if body.get("format") != FORMAT:
        raise CheckpointError(
            f"{layout.step(step)} has format {body.get('format')}, this program reads "
            f"{FORMAT}: use the version of albert-jax that wrote it"
        )
    return _compare(layout.step(step), body["files"])


def _compare(folder: str, table: dict[str, Any]) -> str | None:
    sizes = files.file_sizes(folder)
    sizes.pop(MANIFEST, None)
    # Names and sizes come first: they cost nothing, and most copies cut off fail here.
    for name in sorted(table):
        if name not in sizes:
            return f"{name} is gone"
        if sizes[name] != table[name]["size"]:
            return f"{name} has {sizes[name]} bytes instead of {table[name]['size']}"
    for name in sorted(sizes):
        if name not in table:
            return f"{name} does not belong to it"
    for name, found in digests(folder).items():
        if found["sha256"] != table[name]["sha256"]:
            return f"{name} does not have its digest"
    return None


def _note(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def _serialize(body: dict[str, Any]) -> bytes:
    """A manifest that proves itself, for the moment in which the note is not yet written."""
    text = json.dumps(body, sort_keys=True, indent=1)
    proof = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"body": body, "sha256": proof}, sort_keys=True, indent=1).encode()


def _parse(manifest: bytes | None) -> dict[str, Any] | None:
    """The body of a manifest that is byte for byte as :func:`_serialize` wrote it, or None."""
    if manifest is None or len(manifest) > _MANIFEST_BYTES:
        return None
    try:
        body = json.loads(manifest)["body"]
        return body if _serialize(body) == manifest else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
