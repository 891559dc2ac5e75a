"""The order of rows: epochs, blocks, groups.

Each epoch permutes the windows of the whole corpus. Runs of ``BLOCK_WINDOWS`` consecutive
permuted windows are blocks; a block is planned by itself (its pairs, its packing, its random
documents), so its number of rows is known without its neighbours. Runs of blocks with at least
``GROUP_ROWS`` rows are groups, and the rows of a group are permuted. So neighbours in the corpus
land far apart, yet the rows of a batch come from one or two groups, which are read and planned
once. The place of a row is found by binary search and depends on integers only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from albert_jax import files
from albert_jax.data import counter_rng as random
from albert_jax.data.batches.row_plan import Plan, PlanSettings, plan_rows
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.errors import DataError, StorageError

BLOCK_WINDOWS = 32
"""Windows planned together: about two million tokens."""
GROUP_ROWS = 1 << 17
"""Least rows in a group, unless the corpus has fewer."""

_WINDOWS, _PLAN, _ROWS = range(3)
_CACHED_GROUPS = 2


class Group(NamedTuple):
    """The rows of a group, ready to be filled."""

    tokens: np.ndarray
    """Token ids [tokens], uint16 or uint32."""
    plan: Plan
    """Rows as ranges of ``tokens``."""
    order: np.ndarray
    """int64 [rows]: planned row that comes at each place."""


class _Epoch(NamedTuple):
    windows: np.ndarray
    """int64 [windows]: their permutation."""
    rows: np.ndarray
    """int64 [blocks + 1]: rows before each block."""
    groups: np.ndarray
    """int64 [groups + 1]: first block of each group."""


class RowOrder:
    """The endless sequence of rows of one corpus under one plan.

    ``seed`` is a key of :mod:`albert_jax.data.random`. ``counts`` names a folder, perhaps in a
    bucket, in which the row counts of epochs are kept, so that a resumed run need not plan the
    corpus again. Objects may be pickled (without their caches) and used by several threads.
    """

    def __init__(
        self, corpus: Corpus, settings: PlanSettings, seed: int, counts: str | None = None
    ) -> None:
        self.corpus, self.settings, self.seed = corpus, settings, seed
        self._counts = counts
        self._epochs: list[_Epoch] = []
        self._first_rows = [0]
        self._prepare_caches()

    def locate(self, rows: np.ndarray) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
        """Finds rows by their number since the start, int64 [n].

        Returns for each group touched: epoch, group, which of the n rows lie there, and their
        places in the group.
        """
        with self._lock:
            while self._first_rows[-1] <= int(rows.max(initial=0)):
                self._add_epoch()
        found = []
        epochs = np.searchsorted(np.array(self._first_rows), rows, side="right") - 1
        for epoch in np.unique(epochs).tolist():
            entry = self._epochs[epoch]
            inside = np.flatnonzero(epochs == epoch)
            place = rows[inside] - self._first_rows[epoch]
            group_rows = entry.rows[entry.groups]
            groups = np.searchsorted(group_rows, place, side="right") - 1
            for group in np.unique(groups).tolist():
                here = groups == group
                found.append((epoch, group, inside[here], place[here] - group_rows[group]))
        return found

    def group(self, epoch: int, group: int) -> Group:
        """Reads and plans a group, or takes it from the cache. Raises DataError."""
        with self._lock:
            cached = self._groups.get((epoch, group))
            if cached is None:
                cached = self._make_group(epoch, group)
                self._groups[epoch, group] = cached
                while len(self._groups) > _CACHED_GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((epoch, group))
            return cached

    def epoch_rows(self, epoch: int) -> int:
        """Rows of an epoch."""
        with self._lock:
            while len(self._epochs) <= epoch:
                self._add_epoch()
        return self._first_rows[epoch + 1] - self._first_rows[epoch]

    def digest(self) -> str:
        """Hash of the order: the first epoch's windows and counts, and the first block's rows.

        It changes with the corpus, the seed, the plan, and any change of this code or of numpy
        that would change the order.
        """
        self.epoch_rows(0)
        entry = self._epochs[0]
        plan = self._plan(0, 0)
        order = random.permutation(random.key(self.seed, _ROWS, 0, 0), plan.rows)
        digest = hashlib.sha256(repr(self.settings).encode())
        for array in (entry.windows, entry.rows, entry.groups, *plan, order):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()

    def _plan(self, epoch: int, block: int, windows: np.ndarray | None = None) -> Plan:
        windows = self._epochs[epoch].windows if windows is None else windows
        run = windows[block * BLOCK_WINDOWS : (block + 1) * BLOCK_WINDOWS]
        pieces, sentences = self.corpus.lengths(run.tolist())
        return plan_rows(
            pieces, sentences, self.settings, random.key(self.seed, _PLAN, epoch, block)
        )

    def _make_group(self, epoch: int, group: int) -> Group:
        entry = self._epochs[epoch]
        begin, end = entry.groups[group : group + 2].tolist()
        windows = entry.windows[begin * BLOCK_WINDOWS : end * BLOCK_WINDOWS]
        plans, pair, token = [], 0, 0
        for block in range(begin, end):
            plan = self._plan(epoch, block)
            plans.append(
                plan._replace(
                    first=plan.first[block > begin :] + pair,
                    a_start=plan.a_start + token,
                    b_start=plan.b_start + token,
                )
            )
            pair += len(plan.a_start)
            run = entry.windows[block * BLOCK_WINDOWS : (block + 1) * BLOCK_WINDOWS]
            token += self.corpus.tokens_in(run.tolist())
        plan = Plan(*(np.concatenate(columns) for columns in zip(*plans, strict=True)))
        order = random.permutation(random.key(self.seed, _ROWS, epoch, group), plan.rows)
        return Group(self.corpus.ids(windows.tolist()), plan, order)

    def _add_epoch(self) -> None:
        epoch = len(self._epochs)
        windows = random.permutation(
            random.key(self.seed, _WINDOWS, epoch), self.corpus.num_windows
        )
        blocks = -(-len(windows) // BLOCK_WINDOWS)
        counts = self._load_counts(epoch, blocks)
        if counts is None:
            planned = [self._plan(epoch, block, windows).rows for block in range(blocks)]
            counts = np.array(planned, np.int64)
            self._store_counts(epoch, counts)
        rows = np.concatenate([[0], np.cumsum(counts)])
        if not rows[-1]:
            raise DataError(f"{self.corpus.directory} holds no rows: prepare more text")
        groups = [0]
        while groups[-1] < blocks:
            groups.append(min(int(np.searchsorted(rows, rows[groups[-1]] + GROUP_ROWS)), blocks))
        # A short rest joins the group before it.
        if len(groups) > 2 and rows[groups[-1]] - rows[groups[-2]] < GROUP_ROWS:
            del groups[-2]
        self._epochs.append(_Epoch(windows, rows, np.array(groups)))
        self._first_rows.append(self._first_rows[-1] + int(rows[-1]))

    def _counts_file(self, epoch: int) -> str | None:
        if self._counts is None:
            return None
        sizes = [shard.files for shard in self.corpus.shards]
        name = hashlib.sha256(repr((self.settings, self.seed, epoch, sizes)).encode()).hexdigest()
        return files.join(self._counts, f"rows-{name[:24]}.npy")

    def _load_counts(self, epoch: int, blocks: int) -> np.ndarray | None:
        path = self._counts_file(epoch)
        try:
            content = None if path is None else files.read(path)
            if content is None:
                return None
            counts = np.load(io.BytesIO(content), allow_pickle=False)
        except (StorageError, EOFError, ValueError):
            return None
        return counts if counts.shape == (blocks,) and counts.dtype == np.int64 else None

    def _store_counts(self, epoch: int, counts: np.ndarray) -> None:
        path = self._counts_file(epoch)
        if path is None:
            return
        content = io.BytesIO()
        np.save(content, counts, allow_pickle=False)
        # They are only a shortcut.
        with contextlib.suppress(StorageError):
            files.make_folder(str(self._counts))
            files.write(path, content.getvalue())

    def _prepare_caches(self) -> None:
        self._lock = threading.RLock()
        self._groups: OrderedDict[tuple[int, int], Group] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"], state["_groups"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare_caches()
