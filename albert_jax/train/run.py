"""A run folder, and a run in it from the agreement of its processes to its curves.

config.toml is the resolved config (running it again repeats the run), record.json holds the other
facts that decide the numbers (vocabulary, data order, packages, flags, threads), and vocabulary/
the files that turn text into ids. They are written before the first step and checked at every
restart. Checkpoints, metrics and the lock belong to checkpoint/ and observe/.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import jax

from albert_jax import configfile, files, logs
from albert_jax.checkpoint.lock import RunLock
from albert_jax.checkpoint.manager import Checkpoints
from albert_jax.config import Config
from albert_jax.config_fields import leaves
from albert_jax.errors import CheckpointError, ConfigError, DataError, PeerError
from albert_jax.model.unroll import with_unroll
from albert_jax.model_io import run_record
from albert_jax.model_io.model import BEFORE_CONFIG
from albert_jax.observe import curves, environment
from albert_jax.parallel import agreement, hosts
from albert_jax.parallel.jax_internals import process_count, process_index
from albert_jax.parallel.mesh import check_rows, make_mesh
from albert_jax.train import loop
from albert_jax.train.state import TrainState
from albert_jax.train.task import TrainingTask
from albert_jax.tree import flatten

if TYPE_CHECKING:
    from albert_jax.data.vocabularies.vocabulary import Vocabulary

SHARED_SECONDS = 60.0
"""Time that a file of process 0 may take to appear for the others."""

log = logging.getLogger(__name__)


class RunFolder:
    """The files of a run that are written before its first step."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.config = files.join(path, run_record.CONFIG)
        self.record = files.join(path, run_record.RECORD)
        self.vocabulary = files.join(path, run_record.VOCABULARY)
        self.row_counts = files.join(path, "rows")  # Of planned epochs; they take minutes.

    def refuse_unknown_files(self) -> None:
        """Raises CheckpointError for a folder that is not empty and not a run."""
        names = {name for name in files.names(self.path) if not files.is_temporary(name)}
        names -= BEFORE_CONFIG
        if names and run_record.CONFIG not in names:
            raise CheckpointError(
                f"{self.path} is not a run folder: it has {', '.join(sorted(names)[:3])} but no "
                f"{run_record.CONFIG}; choose another --out"
            )

    def check_shared(self) -> None:
        """Raises ConfigError unless every process finds the record that process 0 has written."""
        deadline = time.monotonic() + SHARED_SECONDS
        while (record := files.read(self.record)) is None and time.monotonic() < deadline:
            time.sleep(1.0)  # A network disk may show a new file late.
        found = "nothing" if record is None else hashlib.sha256(record).hexdigest()[:16]
        name = f"{self.record} (on a disk or in a bucket that all processes share)"
        agreement.agree("the run folder", {name: found})

    def open(
        self,
        config: Config,
        facts: Mapping[str, Any],
        vocabulary_files: Mapping[str, bytes],
        *,
        allow_change: tuple[str, ...] = (),
    ) -> list[str]:
        """Writes the files, or checks that the run in the folder is this one.

        `facts` decide the numbers and are plain JSON. The config may differ from that of the run
        in the fields and sections `allow_change`. Returns lines about the changes since the run
        began.

        Raises:
          CheckpointError: The run has another model.
          ConfigError: The run has another config; the line shows the difference.
          DataError: The run has another vocabulary or data order.
          StorageError: The folder cannot be read or written.
        """
        changes: list[str] = []
        if files.read(self.config) is not None:
            old = configfile.with_absolute_paths(configfile.load(self.config))
            changes += configfile.check_may_continue(old, config, allow_change)
            recorded = run_record.read(self.path)
            changes += self._changed_facts(recorded, facts, data_may_change="data" in allow_change)
            allow_change = (*run_record.allowed(recorded), *allow_change)
        self._write_vocabulary(vocabulary_files)
        record = {"config": configfile.digest(config), **facts}
        if allow_change:
            record[run_record.ALLOWED] = sorted(set(allow_change))
        files.write(self.record, json.dumps(record, indent=1, sort_keys=True).encode() + b"\n")
        files.write(self.config, configfile.dumps(config).encode())
        return changes

    def _write_vocabulary(self, vocabulary_files: Mapping[str, bytes]) -> None:
        """Writes the files of the vocabulary that are absent, and refuses those that differ."""
        for name, data in vocabulary_files.items():
            path = files.join(self.vocabulary, name)
            found = files.read(path)
            if found is None or files.read(self.config) is None:
                files.write(path, data)
            elif found != data:
                raise CheckpointError(
                    f"{path} was changed since the run began: delete it, and it is written again"
                )

    def _changed_facts(
        self, recorded: Mapping[str, Any], facts: Mapping[str, Any], *, data_may_change: bool
    ) -> list[str]:
        common = facts.keys() & recorded.keys()
        for name in run_record.FIXED_FACTS:
            # Other documents may follow, but never with other words: ids would change their sense.
            may_change = data_may_change and name in ("data", "data_order")
            if name in common and facts[name] != recorded[name] and not may_change:
                then, now = run_record.shown_change(recorded[name], facts[name])
                raise DataError(
                    f"{self.record}: the run was started with another {name.replace('_', ' ')} "
                    f"({then}, now {now}): use the data and "
                    "package versions it was started with, or another --out"
                    + (" with --init, which carries the words over" * (name == "vocabulary"))
                )
        old = flatten({name: recorded[name] for name in common})
        new = flatten({name: facts[name] for name in common})
        return [
            f"{path.replace('/', '.')} = {new.get(path)} (was {old.get(path)})"
            for path in sorted({*old, *new})
            if new.get(path) != old.get(path)
        ]


def set_up(config: Config, out: str, inputs: Mapping[str, str]) -> tuple[Config, jax.sharding.Mesh]:
    """Joins the processes of a run and makes its mesh, before anything is written.

    The config comes back with compute.unroll decided; a run that has begun keeps its own. Every
    process must have the same config, package versions and `inputs` (named options and digests).
    Raises ConfigError if one differs or the devices do not fit the config, PeerError if one does
    not answer, and CheckpointError if the folder `out` is neither empty nor a run.
    """
    environment.refuse_seed_offset()
    hosts.initialize_distributed()
    facts = {"--out": out, **inputs}
    facts |= {path: str(value) for path, value in leaves(config)}
    facts |= {f"package {name}": version for name, version in environment.versions().items()}
    agreement.agree("the configuration", facts)
    mesh = make_mesh(config.parallel)
    if jax.process_count() != process_count():
        raise PeerError("several processes without jax.distributed: initialize it first")
    for number, phase in enumerate(config.phases):
        check_rows(phase.batch_size, phase.gradient_accumulation_steps, mesh, f"phases.{number}")
    RunFolder(out).refuse_unknown_files()
    begun = configfile.load(out).compute.unroll if run_record.is_run(out) else "auto"
    return with_unroll(config, mesh.devices.flat[0], begun), mesh


def run_training(
    config: Config,
    task: TrainingTask,
    out: str,
    mesh: jax.sharding.Mesh,
    *,
    facts: Mapping[str, Any],
    vocabulary: Vocabulary,
    allow_change: tuple[str, ...] = (),
    parent_state: Callable[[TrainState], TrainState] | None = None,
) -> None:
    """Trains `task` in the run folder `out`, or continues the run there, and draws its curves.

    The environment and the vocabulary are added to `facts`. See RunFolder.open for `allow_change`
    and loop.train for `parent_state`. Raises AlbertError of every kind.
    """
    config = configfile.with_absolute_paths(config)
    facts = {
        "task": task.name,
        "vocabulary": vocabulary.fingerprint,
        "environment": environment.describe(),
        **facts,
    }
    folder, lock, is_process_0 = RunFolder(out), RunLock(out), process_index() == 0
    with ExitStack() as stack:

        def open_folder() -> list[str]:
            stack.enter_context(lock)
            files.delete_temporary_files(out)
            return folder.open(config, facts, vocabulary.files(), allow_change=allow_change)

        changes = agreement.on_process_0("run folder", open_folder)
        folder.check_shared()
        logs.libraries.use_folder(out)
        if is_process_0:
            for line in changes:
                print(f"{out}: {line}", file=sys.stderr)
        loop.train(
            config,
            task,
            out,
            mesh,
            record={**facts, "config": configfile.dumps(config)},
            lock=lock if is_process_0 else None,
            parent_state=parent_state,
        )
        if is_process_0:
            try:
                curves.draw(out, config)
            except Exception as error:  # noqa: BLE001  # The run is finished whatever fails here.
                log.warning("%s: the run is finished, but not its curves: %s", out, error)


def state_of_parent(source: str, vocabulary: Vocabulary) -> Callable[[TrainState], TrainState]:
    """The first state of a child run, for loop.train: RUN@STEP, or RUN for its newest step.

    The complete state is taken over, optimizer state and step included, so the child's config
    describes the run from its very first step, the parent's part included, and the phases after
    that may differ. The parent's folder is only read.

    Raises ConfigError for a malformed `source`; the returned function raises CheckpointError when
    the step is missing, incomplete, of another run or another shape, or was trained with another
    vocabulary than the child's, because its state cannot be carried over.
    """
    folder, mark, number = source.rpartition("@")
    if mark and not number.isdecimal():
        raise ConfigError(f"--from {source}: write RUN@STEP with a number of steps")
    step = int(number) if mark else None
    folder = folder if mark else source

    def parent_state(shapes: TrainState) -> TrainState:
        with closing(Checkpoints(folder, read_only=True)) as checkpoints:
            restored = checkpoints.restore(shapes, step)
        assert restored is not None  # A reader of a run without checkpoints gets an error.
        run_record.check_checkpoint(folder, restored.step, restored.record)
        parents = restored.record.get("vocabulary", vocabulary.fingerprint)
        run_record.check_vocabulary(vocabulary, parents, "the data's", f"the parent run {folder}")
        return restored.state

    return parent_state
