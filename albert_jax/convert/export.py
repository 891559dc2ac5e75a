"""`albert-jax export`: a step of a run, or a directory of ours, in the format of others."""

from __future__ import annotations

from typing import Literal

import jax

from albert_jax.convert import native
from albert_jax.convert.huggingface import Head, StoredType
from albert_jax.convert.native import Format
from albert_jax.evaluate import depth, loading


def export(
    source: str,
    out: str,
    *,
    step: int | Literal["best", "newest"] = "newest",
    weights: Literal["trained", "averaged"] = "trained",
    to: Format = "huggingface",
    head: Head = "pretraining",
    dtype: StoredType = "float32",
    passes: int | None = None,
) -> None:
    """Writes the directory `out`, which must not exist, and prints one line on it.

    `step` and `weights` choose what is taken from a run, `to` the format, `head` and `dtype` the
    class and type of a Hugging Face directory, `passes` the depth of its network.

    Raises:
      ConfigError: a depth that the model does not have.
      CheckpointError: no such weights, or `out` exists; nothing is left behind.
      StorageError: the disk is full or not writable.
    """
    model = loading.load(source, step=step, weights=weights)
    if passes is not None:
        model = depth.at_depth(model, passes)
    params = jax.device_get(model.params)
    print(
        native.export_run(
            params, model.recipe, model.vocabulary, out, to=to, head=head, dtype=dtype
        )
    )
