"""The order of rows: epochs, groups and blocks.

Each epoch permutes the windows of the whole corpus. A block is a run of ``BLOCK_WINDOWS`` permuted
windows. It is planned by itself (its sequences, its packing, its random documents), so its number
of rows is known without its neighbors. A group is a run of blocks with at least ``GROUP_ROWS``
rows, and its rows are permuted. So neighbors in the corpus land far apart, yet the rows of a batch
come from one or two groups, each of which is read and planned once. A row is found by binary
search, and its place depends on integers only.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from albert_jax import files
from albert_jax.data import counter_rng
from albert_jax.data.batches.row_plan import PlanSettings, RowPlan, plan_rows
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.errors import DataError, StorageError

BLOCK_WINDOWS = 32
"""Windows planned together: about two million tokens."""
GROUP_ROWS = 1 << 17
"""Minimum number of rows in a group, unless the corpus has fewer."""
MIXTURE_PERIOD = 1 << 14
"""Rows after which the pattern of a mixture repeats; in these, weights are met to within 1."""

_WINDOWS, _PLAN, _ROWS = range(3)
"""Purposes of random draws."""
_CACHED_GROUPS = 2


class Group(NamedTuple):
    """The rows of a group, ready to be written into batches."""

    tokens: np.ndarray  # Token ids [tokens], uint16 or uint32
    plan: RowPlan
    """Rows as ranges of ``tokens``."""
    order: np.ndarray  # int64 [rows]: the planned row at each place of the group's order


class RowsOfGroup(NamedTuple):
    """Those of some rows that lie in one group."""

    epoch: int
    group: int
    rows: np.ndarray  # int64 [n]: indices of the rows among those that were asked for
    places: np.ndarray  # int64 [n]: their places in the order of the group


class _Epoch(NamedTuple):
    windows: np.ndarray  # int64 [windows]: the permuted windows
    rows: np.ndarray  # int64 [blocks + 1]: number of rows before each block
    groups: np.ndarray  # int64 [groups + 1]: first block of each group

    def windows_of(self, first_block: int, end_block: int) -> list[int]:
        return self.windows[first_block * BLOCK_WINDOWS : end_block * BLOCK_WINDOWS].tolist()


class RowOrder:
    """The endless sequence of rows of one corpus under one plan.

    ``key`` decides all random draws (counter_rng.key). ``counts`` is a folder, perhaps in a
    bucket, that keeps the row counts of epochs, because planning the epochs of a large corpus
    again for a resumed run takes minutes. Objects may be pickled and used by several threads.
    """

    def __init__(
        self, corpus: Corpus, settings: PlanSettings, key: int, counts: str | None = None
    ) -> None:
        self.corpus, self.settings, self.key = corpus, settings, key
        self._counts = counts
        self._epochs: list[_Epoch] = []
        self._first_rows = [0]
        self._lock = threading.RLock()
        self._groups: dict[tuple[int, int], Group] = {}

    def locate(self, rows: np.ndarray) -> list[RowsOfGroup]:
        """Finds the groups of rows by the numbers of the rows since the start, int64 [n]."""
        with self._lock:
            while self._first_rows[-1] <= int(rows.max(initial=0)):
                self._add_epoch()
        located = []
        epochs = np.searchsorted(np.array(self._first_rows), rows, side="right") - 1
        for number in np.unique(epochs).tolist():
            epoch = self._epochs[number]
            in_epoch = np.flatnonzero(epochs == number)
            row_of_epoch = rows[in_epoch] - self._first_rows[number]
            first_rows = epoch.rows[epoch.groups]
            groups = np.searchsorted(first_rows, row_of_epoch, side="right") - 1
            for group in np.unique(groups).tolist():
                in_group = groups == group
                places = row_of_epoch[in_group] - first_rows[group]
                located.append(RowsOfGroup(number, group, in_epoch[in_group], places))
        return located

    def group(self, epoch: int, group: int) -> Group:
        """Reads and plans a group, or takes it from the cache. Raises DataError."""
        with self._lock:
            if (epoch, group) not in self._groups:
                self._groups[epoch, group] = self._make_group(epoch, group)
                if len(self._groups) > _CACHED_GROUPS:
                    del self._groups[next(iter(self._groups))]
            return self._groups[epoch, group]

    def epoch_rows(self, epoch: int) -> int:
        """Number of rows of an epoch."""
        with self._lock:
            while len(self._epochs) <= epoch:
                self._add_epoch()
        return self._first_rows[epoch + 1] - self._first_rows[epoch]

    def digest(self) -> str:
        """Hash of the first epoch's windows and row counts and of its first block's rows.

        It changes with the corpus, the seed, the plan, and any change of this code or of numpy
        that would change the order.
        """
        self.epoch_rows(0)
        epoch = self._epochs[0]
        plan = self._plan(epoch.windows_of(0, 1), 0, 0)
        digest = hashlib.sha256(repr(self.settings).encode())
        order = self._permuted_rows(0, 0, plan.rows)
        for array in (epoch.windows, epoch.rows, epoch.groups, *plan, order):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()

    def _plan(self, windows: list[int], epoch: int, block: int) -> RowPlan:
        key = counter_rng.key(self.key, _PLAN, epoch, block)
        return plan_rows(*self.corpus.lengths(windows), self.settings, key)

    def _permuted_rows(self, epoch: int, group: int, rows: int) -> np.ndarray:
        return counter_rng.permutation(counter_rng.key(self.key, _ROWS, epoch, group), rows)

    def _make_group(self, epoch: int, group: int) -> Group:
        entry = self._epochs[epoch]
        first_block, end_block = entry.groups[group : group + 2].tolist()
        plans, sequences, tokens = [], 0, 0
        for block in range(first_block, end_block):
            windows = entry.windows_of(block, block + 1)
            plan = self._plan(windows, epoch, block)
            plans.append(
                plan._replace(
                    # The end of a block's last row is the start of the next block's first.
                    first=plan.first[block > first_block :] + sequences,
                    a_start=plan.a_start + tokens,
                    b_start=plan.b_start + tokens,
                )
            )
            sequences += len(plan.a_start)
            tokens += self.corpus.tokens_in(windows)
        plan = RowPlan(*(np.concatenate(columns) for columns in zip(*plans, strict=True)))
        ids = self.corpus.ids(entry.windows_of(first_block, end_block))
        return Group(ids, plan, self._permuted_rows(epoch, group, plan.rows))

    def _add_epoch(self) -> None:
        number = len(self._epochs)
        key = counter_rng.key(self.key, _WINDOWS, number)
        windows = counter_rng.permutation(key, self.corpus.num_windows)
        rows = np.concatenate([[0], np.cumsum(self._row_counts(number, windows))])
        if not rows[-1]:
            raise DataError(f"{self.corpus.directory} holds no rows: prepare more text")
        blocks, groups = len(rows) - 1, [0]
        while groups[-1] < blocks:
            groups.append(min(int(np.searchsorted(rows, rows[groups[-1]] + GROUP_ROWS)), blocks))
        # A last group that is too short joins the group before it.
        if len(groups) > 2 and rows[groups[-1]] - rows[groups[-2]] < GROUP_ROWS:
            del groups[-2]
        self._epochs.append(_Epoch(windows, rows, np.array(groups)))
        self._first_rows.append(self._first_rows[-1] + int(rows[-1]))

    def _row_counts(self, epoch: int, windows: np.ndarray) -> np.ndarray:
        """Rows of each block of an epoch, from the folder of counts or from their plans."""
        blocks = np.split(windows, range(BLOCK_WINDOWS, len(windows), BLOCK_WINDOWS))
        corpus = [shard.entry["files"] for shard in self.corpus.shards]
        name = hashlib.sha256(repr((self.settings, self.key, epoch, corpus)).encode()).hexdigest()
        path = files.join(self._counts, f"rows-{name[:24]}") if self._counts else None
        # The counts only save time, so a folder that cannot be read or written is no error.
        with contextlib.suppress(StorageError):
            stored = files.read(path) if path else None
            if stored and len(stored) == 8 * len(blocks):
                return np.frombuffer(stored, "<i8")
        counts = [self._plan(of.tolist(), epoch, block).rows for block, of in enumerate(blocks)]
        with contextlib.suppress(StorageError):
            if path:
                files.write(path, np.array(counts, "<i8").tobytes())
        return np.array(counts, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_groups": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


class Mixture:
    """A repeating pattern of corpora, int64 [MIXTURE_PERIOD], in proportion to their weights."""

    def __init__(self, weights: Sequence[float], key: int) -> None:
        share = np.array(weights, float) / sum(weights) * MIXTURE_PERIOD
        counts = np.maximum(np.floor(share), 1).astype(np.int64)
        order = np.argsort(counts - share, kind="stable")
        while counts.sum() != MIXTURE_PERIOD:
            rest = MIXTURE_PERIOD - int(counts.sum())
            if rest > 0:
                counts[order[:rest]] += 1
            else:
                counts[np.argmax(counts)] -= 1
        pattern = np.repeat(np.arange(len(counts)), counts)
        self.pattern = pattern[counter_rng.permutation(key, MIXTURE_PERIOD)]
        self._counts = counts
        self._rank = np.zeros(MIXTURE_PERIOD, np.int64)
        for corpus, count in enumerate(counts.tolist()):
            self._rank[self.pattern == corpus] = np.arange(count)

    def corpus_of(self, rows: np.ndarray) -> np.ndarray:
        """The corpus that each row of the phase comes from."""
        return self.pattern[rows % MIXTURE_PERIOD]

    def rows_within(self, corpus: int, rows: np.ndarray) -> np.ndarray:
        """The numbers that rows of one corpus have among all rows of that corpus."""
        return rows // MIXTURE_PERIOD * self._counts[corpus] + self._rank[rows % MIXTURE_PERIOD]
