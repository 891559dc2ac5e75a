"""A checkpoint is complete when its manifest of SHA-256 digests fits all of its files.

``checkpoints/STEP/manifest.json`` is the last object written into a step, after Orbax's commit.
The completion marker ``complete/STEP``, written after it and outside the step, holds the digest of
the manifest itself; only a kill between the two leaves a complete step without its marker. No
reader of Orbax's formats notices a flipped bit in array data; with these two every changed,
truncated or missing byte of a step is noticed before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from albert_jax import files
from albert_jax.errors import CheckpointError

FORMAT = 1
"""Version of the layout of a step; other versions are refused."""

MANIFEST = "manifest.json"

_THREADS = min(4, os.cpu_count() or 1)


class Layout:
    """Paths of a run folder's checkpoints."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.checkpoints = files.join(run_dir, "checkpoints")
        """The folder of Orbax's steps."""
        self.markers = files.join(run_dir, "complete")
        """The folder of the completion markers."""

    def step(self, step: int) -> str:
        """The folder of one step."""
        return files.join(self.checkpoints, str(step))

    def manifest(self, step: int) -> str:
        """The manifest inside a step."""
        return files.join(self.step(step), MANIFEST)

    def marker(self, step: int) -> str:
        """The completion marker of a step."""
        return files.join(self.markers, str(step))

    def saved_steps(self) -> list[int]:
        """The steps that have a manifest, ascending."""
        steps = step_numbers(self.checkpoints)
        return [step for step in steps if self.has_manifest(step)]

    def has_manifest(self, step: int) -> bool:
        """Returns whether a step is a folder with a manifest."""
        in_place = files.is_folder(self.step(step))
        return in_place and files.read(self.manifest(step)) is not None


def step_numbers(folder: str) -> list[int]:
    """The names in a folder that are step numbers as Orbax writes them, ascending."""
    return sorted(int(n) for n in files.names(folder) if re.fullmatch("0|[1-9][0-9]*", n))


def digests(folder: str, *, sync: bool = False) -> dict[str, Any]:
    """Size and SHA-256 of every file of a step but its manifest, by path.

    `sync` also flushes local files to the disk.
    """
    sizes = files.file_sizes(folder)
    sizes.pop(MANIFEST, None)
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = pool.map(lambda name: files.sha256(files.join(folder, name), sync=sync), sizes)
        return {
            name: {"size": size, "sha256": digest}
            for (name, size), digest in zip(sizes.items(), hashes, strict=True)
        }


def complete(layout: Layout, step: int, metrics: dict[str, float]) -> None:
    """Writes the manifest (digests and metrics) into a committed step, then its marker."""
    table = digests(layout.step(step), sync=True)
    body = {"format": FORMAT, "step": step, "metrics": metrics, "files": table}
    files.write(layout.manifest(step), _serialize(body))
    write_marker(layout, step)


def add_metrics(layout: Layout, step: int, metrics: dict[str, float]) -> None:
    """Adds metrics to those of a complete step. After a kill at any moment it is complete."""
    body = _parse(files.read(layout.manifest(step)))
    if body is None:
        raise CheckpointError(f"{layout.manifest(step)} was changed while the run went on")
    body["metrics"] |= metrics
    files.delete(layout.marker(step))
    files.write(layout.manifest(step), _serialize(body))
    write_marker(layout, step)


def write_marker(layout: Layout, step: int) -> None:
    """Writes the completion marker of a step whose manifest is known to be right."""
    manifest = files.read(layout.manifest(step)) or b""
    files.write(layout.marker(step), _marker(manifest))


def delete(layout: Layout, step: int) -> None:
    """Deletes a step. After a kill at any moment it is either complete or unfinished."""
    files.delete(layout.marker(step))
    files.delete(layout.manifest(step))
    files.delete_tree(layout.step(step))


def metrics_of(layout: Layout, step: int) -> dict[str, float]:
    """The metrics that a step was saved with; empty if its manifest is unreadable."""
    return (_parse(files.read(layout.manifest(step))) or {}).get("metrics", {})


def is_unfinished(layout: Layout, step: int) -> bool:
    """Returns whether a step has neither manifest nor marker, so that its save was interrupted.

    A file, pipe or link that leads nowhere is not a save, whatever its name.
    """
    if files.is_other(layout.step(step)) or layout.has_manifest(step):
        return False
    return files.read(layout.marker(step)) is None


def find_damage(layout: Layout, step: int) -> str | None:
    """The first fault of a step, in a few words that name the file; None if it is complete.

    A marker may be missing, because a kill between manifest and marker leaves a complete step.

    Raises:
      CheckpointError: The step is intact but in a format that this program does not read.
      StorageError: A file exists but cannot be read.
    """
    if files.is_other(layout.step(step)):
        return "it is not a folder"
    manifest, marker = files.read(layout.manifest(step)), files.read(layout.marker(step))
    if manifest is None:
        in_place = files.is_folder(layout.step(step))
        return f"{MANIFEST} is gone" if in_place else "its folder is gone"
    if marker is not None and marker != _marker(manifest):
        return f"{MANIFEST} does not match the completion marker complete/{step}"
    body = _parse(manifest)
    if body is None:
        return f"{MANIFEST} cannot be read as the manifest of step {step}"
    if body["step"] != step:
        return f"{MANIFEST} is that of step {body['step']}: it is a copy under another number"
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{layout.step(step)} has format {body['format']}, this program reads {FORMAT}: use "
            "the version of albert-jax that wrote it"
        )
    return _compare(layout.step(step), body["files"])


def _compare(folder: str, table: dict[str, Any]) -> str | None:
    sizes = files.file_sizes(folder)
    sizes.pop(MANIFEST, None)
    # Names and sizes come first: they cost nothing, and most interrupted copies fail here.
    for name in sorted(table):
        if name not in sizes:
            return f"{name} is gone"
        if sizes[name] != table[name]["size"]:
            return f"{name} has {sizes[name]} bytes instead of {table[name]['size']}"
    for name in sizes:
        if name not in table:
            return f"{name} does not belong to it"
    for name, actual in digests(folder).items():
        if actual["sha256"] != table[name]["sha256"]:
            return f"{name} does not match its digest"
    return None


def _marker(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def _serialize(body: dict[str, Any]) -> bytes:
    """A manifest with its own digest, which proves it as long as the marker is not written."""
    text = json.dumps(body, sort_keys=True, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"body": body, "sha256": digest}, sort_keys=True, indent=1).encode()


def _parse(manifest: bytes | None) -> dict[str, Any] | None:
    """The body of a manifest if it is byte for byte as :func:`_serialize` wrote it, else None."""
    try:
        body = json.loads(manifest or b"")["body"]
        numbers = [body["step"], body["format"], *(file["size"] for file in body["files"].values())]
        texts = [file["sha256"] for file in body["files"].values()]
        scores = list(body["metrics"].values())
        expected = [int] * len(numbers) + [str] * len(texts) + [float] * len(scores)
        found = [type(value) for value in (*numbers, *texts, *map(float, scores))]
        return body if found == expected and _serialize(body) == manifest else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
