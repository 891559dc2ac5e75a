"""Sorts a run's checkpoint folder before Orbax sees it: whole, unfinished or damaged.

Orbax takes every committed step for its latest, silently skips every save up to it and counts
it in its retention; so what is not whole has to leave the folder first.

======================  =====================  ===============================================
note ``whole/STEP``     manifest and digests   the step is
======================  =====================  ===============================================
there                   fit                    whole
none                    fit                    whole; the note is written
none                    none, or do not fit    an unfinished save, put aside: ``unfinished/STEP``
there                   wrong or gone          damaged, leaves the folder: ``damaged/STEP``
======================  =====================  ===============================================

Digests are compared from the newest step down to the first whole one; older steps are compared
when they are needed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field

from albert_jax import files
from albert_jax.checkpoint import digest
from albert_jax.checkpoint.digest import Layout
from albert_jax.errors import CheckpointError

log = logging.getLogger(__name__)

# Orbax's name for a save that was not committed; a bucket has none (no rename there).
_UNCOMMITTED = ".orbax-checkpoint-tmp"


@dataclass
class _Found:
    """What a look at the folder found; nothing has been moved yet."""

    newest: int | None = None
    unfinished: list[int] = field(default_factory=list)
    misfits: dict[int, str] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)


def sort(layout: Layout) -> int | None:
    """Puts aside what is not whole, in one line each, and returns the newest whole step.

    Returns:
      The step to continue from, or None: the run has saved nothing yet.

    Raises:
      CheckpointError: steps were saved but none is whole (never a silent start from step 0), or
        the newest one was written by a newer version.
      StorageError: the folder cannot be read or written.
    """
    for step in digest.numbers(files.join(layout.run_dir, "retired")):
        finish_retirement(layout, step)
    files.delete_tree(files.join(layout.run_dir, "shares"))
    _clear_strays(layout)
    found = _look(layout)
    for step, why in found.damaged.items():
        _quarantine(layout, step, why)
    if found.newest is None:
        _refuse_unless_new(layout, found)
    for step in [*found.unfinished, *found.misfits]:
        _put_aside(layout, step, found.newest)
    return found.newest


def newest_whole(layout: Layout) -> int:
    """The newest whole step, for readers: nothing is moved, a damaged step is told and skipped.

    Raises:
      CheckpointError: there is none.
    """
    for step in reversed(digest.numbers(layout.checkpoints)):
        manifest = files.read(layout.manifest(step))
        if manifest is None:
            continue  # perhaps a run is saving it right now
        why = digest.fault(layout, step, manifest, files.read(layout.note(step)))
        if why is None:
            return step
        log.warning("%s is damaged (%s): trying the one before", layout.step(step), why)
    raise CheckpointError(
        f"{layout.run_dir}: no whole checkpoint in it; give the folder of a run that has saved one"
    )


def demand_whole(layout: Layout, step: int) -> None:
    """Raises CheckpointError if one asked-for step is absent or damaged."""
    manifest = files.read(layout.manifest(step))
    note = files.read(layout.note(step))
    if manifest is None and note is None:
        have = ", ".join(map(str, layout.noted_steps())) or "none"
        raise CheckpointError(f"{layout.run_dir}: no checkpoint of step {step}; it has: {have}")
    why = digest.fault(layout, step, manifest, note)
    if why is not None:
        raise CheckpointError(
            f"{layout.step(step)} is damaged ({why}): choose another step or restore its files"
        )


def retire(layout: Layout, step: int) -> None:
    """Deletes a whole step so that a kill at any moment leaves no step that looks damaged."""
    files.write(layout.retired(step), b"")
    finish_retirement(layout, step)


def finish_retirement(layout: Layout, step: int) -> None:
    """Carries out the deletion that ``retired/STEP`` announces, from wherever it was cut off."""
    files.delete(layout.note(step))
    files.delete_tree(layout.step(step))
    files.delete(layout.retired(step))


def remove_uncommitted(layout: Layout) -> list[str]:
    """Deletes what cut-off saves left under temporary names; returns these names."""
    names = [name for name in files.names(layout.checkpoints) if _UNCOMMITTED in name]
    for name in names:
        files.delete_tree(files.join(layout.checkpoints, name))
    return names


def _clear_strays(layout: Layout) -> None:
    for name in remove_uncommitted(layout):
        step = name.split(_UNCOMMITTED)[0]
        log.warning("%s: removed the rest of an interrupted save of step %s", layout.run_dir, step)
    for name in files.names(layout.checkpoints):
        if not digest.is_step(name):
            log.warning("%s: ignored, it is not ours", files.join(layout.checkpoints, name))


def _look(layout: Layout) -> _Found:
    found = _Found()
    present = set(digest.numbers(layout.checkpoints))
    noted = set(layout.noted_steps())
    for step in sorted(present | noted, reverse=True):
        if found.newest is not None and step in present and step in noted:
            continue  # compared when it is needed
        manifest = files.read(layout.manifest(step))
        note = files.read(layout.note(step))
        if note is None and manifest is None:
            found.unfinished.append(step)
            continue
        why = digest.fault(layout, step, manifest, note)
        if why is None:
            if note is None and manifest is not None:
                digest.write_note(layout, step, manifest)
            found.newest = found.newest if found.newest is not None else step
        elif note is None:
            found.misfits[step] = why
        else:
            found.damaged[step] = why if step in present else "the whole step is gone"
    return found


def _refuse_unless_new(layout: Layout, found: _Found) -> None:
    """Lets a run begin at step 0 only if it cannot have had a whole checkpoint."""
    mend = "restore the files from a copy, or start anew with another --out"
    before = files.names(files.join(layout.run_dir, "damaged"))
    if found.damaged or before:
        names = ", ".join(before)
        raise CheckpointError(
            f"{layout.run_dir}: every checkpoint is damaged (see damaged/: {names}); {mend}"
        )
    if found.misfits:
        step, why = next(iter(found.misfits.items()))
        raise CheckpointError(
            f"{layout.step(step)} does not fit its manifest ({why}), perhaps a copy that was cut "
            f"off, and no other checkpoint is whole; {mend}"
        )
    if len(found.unfinished) > 1:
        raise CheckpointError(
            f"{layout.checkpoints}: steps {', '.join(map(str, sorted(found.unfinished)))} and no "
            f"manifest in any of them, so this is not a folder of ours or a copy cut off; {mend}"
        )


def _put_aside(layout: Layout, step: int, newest: int | None) -> None:
    """Moves an unfinished save to ``unfinished/STEP``; only the last one is kept."""
    shelf = files.join(layout.run_dir, "unfinished")
    for name in files.names(shelf):
        files.delete_tree(files.join(shelf, name))
    files.move_tree(layout.step(step), files.join(shelf, str(step)))
    log.warning(
        "%s: the save of step %d was not finished, put aside under unfinished/%d; going on from "
        "step %d",
        layout.run_dir,
        step,
        step,
        newest or 0,
    )


def _quarantine(layout: Layout, step: int, why: str) -> None:
    """Takes a damaged step out of the folder; ``damaged/STEP/why.json`` tells what failed.

    What failed is written first, "moved" last: cut off in between, the next start goes on with
    the same folder instead of beginning another.
    """
    target = files.join(layout.run_dir, "damaged", str(step))
    copy = 1
    while _is_complete(target):
        copy += 1
        target = files.join(layout.run_dir, "damaged", f"{step}.{copy}")
    reason = files.join(target, "why.json")
    files.write(reason, json.dumps({"step": step, "failed": why, "moved": False}).encode())
    if files.is_folder(layout.step(step)):
        files.move_tree(layout.step(step), files.join(target, "step"))
    files.write(reason, json.dumps({"step": step, "failed": why, "moved": True}).encode())
    files.delete(layout.note(step))
    log.warning(
        "%s: checkpoint %d is damaged (%s), moved to %s; using the one before",
        layout.run_dir,
        step,
        why,
        target.removeprefix(layout.run_dir).lstrip("/"),
    )


def _is_complete(target: str) -> bool:
    data = files.read(files.join(target, "why.json"))
    try:
        return data is not None and bool(json.loads(data).get("moved"))
    except (ValueError, AttributeError):
        return True
