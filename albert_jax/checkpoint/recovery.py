"""Brings a run's checkpoint folder into order before Orbax sees it.

Orbax counts every committed step, even a damaged one, as its latest: it silently skips saves up to
that step and counts it in its retention. So incomplete steps have to leave the folder first.

=======================  =====================  ===================================================
marker ``complete/STEP``  manifest and digests  the step is
=======================  =====================  ===================================================
present                  match                  complete
absent                   match                  complete; the marker is written
absent                   no manifest            an unfinished save, which is deleted
present or absent        do not match           damaged, and is moved to ``damaged/STEP``
present or absent        of another step        a copy under a wrong number, treated as damaged
(no folder but a file)                          no step at all, which is moved there too
=======================  =====================  ===================================================

Digests are compared from the newest step down to the first complete one; older steps are compared
when they are needed.
"""

from __future__ import annotations

import json
import logging

from albert_jax import files
from albert_jax.checkpoint import manifest
from albert_jax.checkpoint.manifest import Layout
from albert_jax.errors import CheckpointError

log = logging.getLogger(__name__)

# Part of Orbax's name for a save that was not committed; a bucket has none (no rename there).
_UNCOMMITTED = ".orbax-checkpoint-tmp"


def recover(layout: Layout) -> int | None:
    """Removes incomplete steps, with one line about each, and returns the newest complete step.

    Returns None if the run has saved nothing yet.

    Raises:
      CheckpointError: Steps were saved but none is complete, so that the run would silently start
        from step 0, or the newest one has another format.
      StorageError: The folder cannot be read or written.
    """
    files.delete_temporary_files(layout.markers)
    for name in remove_uncommitted(layout):
        step = name.split(_UNCOMMITTED)[0]
        log.warning("%s: removed the rest of an interrupted save of step %s", layout.run_dir, step)
    newest: int | None = None
    unfinished: list[int] = []
    present = set(manifest.step_numbers(layout.checkpoints))
    marked = set(manifest.step_numbers(layout.markers))
    for step in sorted(present | marked, reverse=True):
        if newest is not None and step in present and step in marked:
            continue
        if manifest.is_unfinished(layout, step):
            unfinished.append(step)
        elif damage := manifest.find_damage(layout, step):
            _quarantine(layout, step, damage)
        else:
            if step not in marked:
                manifest.write_marker(layout, step)
            newest = step if newest is None else newest
    if newest is None:
        _refuse_unless_new(layout, unfinished)
    for step in _more_than_a_run_leaves(unfinished, newest or 0):
        _quarantine(layout, step, f"it has no {manifest.MANIFEST}, so another program saved it")
        unfinished.remove(step)
    for step in unfinished:
        files.delete_tree(layout.step(step))
        line = f"the save of step {step} was not finished, removed it"
        log.warning("%s: %s; continuing from step %d", layout.run_dir, line, newest or 0)
    return newest


def newest_complete(layout: Layout) -> int:
    """The newest complete step, for readers: nothing is moved, damaged steps are reported.

    Raises CheckpointError if there is none.
    """
    step = newest_before(layout, None)
    if step is None:
        raise CheckpointError(
            f"{layout.run_dir} has no complete checkpoint yet: let it save one, or name another run"
        )
    return step


def newest_before(layout: Layout, limit: int | None) -> int | None:
    """The newest complete step, below `limit` if there is one; None if there is none."""
    for step in reversed(layout.saved_steps()):
        if limit is not None and step >= limit:
            continue
        damage = manifest.find_damage(layout, step)
        if damage is None:
            return step
        log.warning("%s is damaged (%s): trying the one before", layout.step(step), damage)
    return None


def require_complete(layout: Layout, step: int) -> None:
    """Raises CheckpointError if a requested step is absent or damaged."""
    if manifest.is_unfinished(layout, step):
        saved = ", ".join(map(str, layout.saved_steps())) or "none"
        raise CheckpointError(f"{layout.run_dir}: no checkpoint of step {step}; it has: {saved}")
    damage = manifest.find_damage(layout, step)
    if damage is not None:
        raise CheckpointError(
            f"{layout.step(step)} is damaged ({damage}): choose another step or restore its files"
        )


def remove_uncommitted(layout: Layout) -> list[str]:
    """Deletes the temporary folders of interrupted saves and returns their names."""
    names = [name for name in files.names(layout.checkpoints) if _UNCOMMITTED in name]
    for name in names:
        files.delete_tree(files.join(layout.checkpoints, name))
    return names


def _refuse_unless_new(layout: Layout, unfinished: list[int]) -> None:
    """Lets a run begin at step 0 only if it cannot have had a complete checkpoint."""
    fix = "restore the files from a copy, or start anew with another --out"
    damaged = files.join(layout.run_dir, "damaged")
    quarantined = [
        name for name in files.names(damaged) if not files.is_other(_moved(damaged, name))
    ]
    if quarantined:
        raise CheckpointError(
            f"{layout.run_dir}: every checkpoint is damaged or an interrupted copy (see damaged/: "
            f"{', '.join(quarantined)}); {fix}"
        )
    if len(unfinished) > 1:
        steps = ", ".join(map(str, sorted(unfinished)))
        raise CheckpointError(
            f"{layout.checkpoints}: steps {steps} have no manifest, so they are an interrupted "
            f"copy or were saved by another program; {fix}"
        )


def _more_than_a_run_leaves(unfinished: list[int], newest: int) -> list[int]:
    """Unfinished steps that no kill explains: a run saves one step, and deletes one, at a time."""
    later = [step for step in unfinished if step > newest]
    earlier = [step for step in unfinished if step < newest]
    return [step for group in (later, earlier) if len(group) > 1 for step in group]


def _quarantine(layout: Layout, step: int, damage: str) -> None:
    """Moves a damaged step out of the folder; ``damaged/STEP/why.json`` states the damage.

    The marker is deleted last, so that after a kill the next start finishes the work.
    """
    name, copy = f"damaged/{step}", 1
    in_place = _is_there(layout.step(step))
    while in_place and _is_there(_moved(layout.run_dir, name)):
        copy += 1
        name = f"damaged/{step}.{copy}"
    target = files.join(layout.run_dir, name)
    reason = files.join(target, "why.json")
    if in_place or files.read(reason) is None:
        files.write(reason, json.dumps({"step": step, "failed": damage}).encode())
    if in_place:
        files.move_tree(layout.step(step), _moved(layout.run_dir, name))
    files.delete(layout.marker(step))
    line = f"checkpoint {step} is damaged ({damage}), moved to {name}; using the one before"
    log.warning("%s: %s", layout.run_dir, line)


def _moved(folder: str, name: str) -> str:
    """The path of `name` in the folder to which damaged steps are moved."""
    return files.join(folder, name, "step")


def _is_there(path: str) -> bool:
    """Returns whether a name is taken, by a folder or by anything else."""
    return files.is_folder(path) or files.is_other(path)
