"""A BabyLM submission: the checkpoints of a run at numbers of words seen, for Transformers."""

from __future__ import annotations

import contextlib

from albert_jax.errors import CheckpointError
from albert_jax.export import Head, StoredType

LAST = "main"
"""Folder of the newest checkpoint."""


def name_of(words: float) -> str:
    """The name that BabyLM gives to a checkpoint: chck_1M after a million words."""
    return f"chck_{words / 1e6:.12g}M"


def export(run: str, out: str, *, head: Head | None = None, dtype: StoredType = "float32") -> str:
    """Writes `out` with a folder for each milestone of words, and main; returns a line each.

    The default of `head` is the masked-language head. Raises CheckpointError if no checkpoint is
    at a milestone, and otherwise the errors of :func:`albert_jax.export.export.export`.
    """
    from albert_jax.checkpoint.manager import WORDS_MILESTONE, Checkpoints
    from albert_jax.export import huggingface
    from albert_jax.files import new_folder
    from albert_jax.model_io import model as models
    from albert_jax.model_io import run_record

    if not run_record.is_run(run):
        raise CheckpointError(f"{run} is not a run folder: name the --out of albert-jax pretrain")
    opened = Checkpoints(run, read_only=True)
    with contextlib.closing(opened) as checkpoints:
        saved = {step: checkpoints.metrics(step) for step in checkpoints.steps()}
    milestones = {step: row for step, row in saved.items() if WORDS_MILESTONE in row}
    if not milestones:
        raise CheckpointError(
            f"{run} kept no checkpoint at a number of words: train with --run.save-at-words"
        )
    lines = []
    with new_folder(out) as folder:
        for step, row in milestones.items():
            name = name_of(row[WORDS_MILESTONE])
            huggingface.export(
                models.load(run, step=step), str(folder / name), head=head or "mlm", dtype=dtype
            )
            lines.append(f"{out}/{name}: step {step}, {row['words_seen']:,.0f} words seen")
        newest = models.load(run)
        huggingface.export(newest, str(folder / LAST), head=head or "mlm", dtype=dtype)
        lines.append(f"{out}/{LAST}: step {newest.step}")
    return "\n".join(lines)
