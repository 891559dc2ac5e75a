"""Orbax's CheckpointManager, with its settings and its errors translated into ours."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from albert_jax import files
from albert_jax.checkpoint.leaves import describe, nested, unflatten_like
from albert_jax.checkpoint.manifest import Layout
from albert_jax.errors import CheckpointError, StorageError

_STORAGE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENOENT,
)  # fmt: skip


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask JAX's preemption service whether to stop.

    It would ask from the finalizing thread of process 0, with the number of a step that is
    already past: the service would take that for where the process is, and agree on a step
    that process 0 never reaches again. Only the training loop asks (``train/stop.py``).
    """

    def reached_preemption(self, step: int) -> bool:
        """Always False."""
        return False


class OrbaxStore:
    """The saved states and records of a run, without digests; opened when first used."""

    def __init__(self, layout: Layout, *, read_only: bool) -> None:
        self._layout, self._read_only = layout, read_only
        self._manager: _Manager | None = None

    def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
        """Starts to save a step; returns as soon as the state may be changed."""
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nested(state)),
            record=ocp.args.JsonSave({"leaves": describe(state), "record": record}),
        )
        self._open().save(step, args=items, force=True)

    def wait(self) -> None:
        """Waits until the last save is committed. Raises what it failed with."""
        self._open().wait_until_finished()

    def restore_record(self, step: int) -> dict[str, Any]:
        """The record of a step and the description of its leaves, by "record" and "leaves"."""
        return self._restore(step, record=ocp.args.JsonRestore())["record"]

    def restore_state(self, step: int, abstract_state: Any, *, partial: bool) -> Any:
        """The arrays of a step, each on the sharding that `abstract_state` gives it."""
        tree = nested(abstract_state)
        first_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaf_args = jax.tree.map(
            lambda leaf: ocp.ArrayRestoreArgs(
                sharding=getattr(leaf, "sharding", None) or first_device,
                global_shape=tuple(jnp.shape(leaf)),
                dtype=jnp.result_type(leaf),
            ),
            tree,
        )
        arguments = ocp.args.PyTreeRestore(
            item=tree, restore_args=leaf_args, partial_restore=partial
        )
        return unflatten_like(abstract_state, self._restore(step, state=arguments)["state"])

    def close(self) -> None:
        """Frees Orbax's threads; the store opens again when it is used."""
        manager, self._manager = self._manager, None
        if manager is not None:
            # An error here repeats the failure of a save that has been reported already.
            with contextlib.suppress(Exception):
                manager.close()

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._open().restore(step, args=ocp.args.Composite(**items))
        except OSError as error:
            raise files.storage_error(self._layout.step(step), error) from error
        except Exception as error:
            raise CheckpointError(
                f"{self._layout.step(step)}: Orbax cannot read it ({_first_line(error)}); "
                "restore its files, or move it away, and the step before it is taken"
            ) from error

    def _open(self) -> _Manager:
        if self._manager is None:
            handlers = {
                # Weights hardly compress: zstd would cost 6 s of xxlarge's 9 and save an eighth.
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
                "record": ocp.JsonCheckpointHandler(),
            }
            path = self._layout.checkpoints
            path = path if files.is_bucket(path) else os.path.abspath(path)
            with _errors_only() if self._read_only else contextlib.nullcontext():
                options = ocp.CheckpointManagerOptions(
                    create=False,
                    read_only=self._read_only,
                    save_root_metadata=False,
                    # Orbax would delete the last complete step before the new has its manifest.
                    max_to_keep=None,
                )
                self._manager = _Manager(path, options=options, item_handlers=handlers)
        return self._manager


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Keeps Orbax from warning that what is opened for reading is opened for reading."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def storage_reason(error: BaseException) -> str | None:
    """The reason in a few words if the storage failed; None for an error of another kind.

    TensorStore and the thread pools in between wrap the operating system's error in their own, so
    its text is searched along the whole chain.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, StorageError):
            return str(link)
        text = " ".join(str(link).split()).lower()
        for reason in map(os.strerror, _STORAGE_ERRORS):
            if reason.lower() in text:
                return reason
        if isinstance(link, OSError):
            return _first_line(link)
        link = link.__cause__ or link.__context__
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
