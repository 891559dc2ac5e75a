"""The order of rows: which rows of a corpus make up which batch.

Each epoch permutes the windows of the corpus. Every ``BLOCK_WINDOWS`` permuted windows form a
block. A block is planned by itself (sequences, packing, random documents), so its number of rows
does not depend on other blocks. Consecutive blocks with at least ``GROUP_ROWS`` rows together form
a group, and the rows of a group are permuted. Rows that are neighbors in the corpus therefore land
far apart, yet a batch needs only one or two groups, each of which is read and planned once.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from albert_jax import files
from albert_jax.data import counter_rng
from albert_jax.data.batches.row_plan import PlanSettings, RowPlan, inside, plan_rows
from albert_jax.data.corpus.corpus import Corpus, Place
from albert_jax.errors import DataError, StorageError

BLOCK_WINDOWS = 32
"""Windows of a block: about two million tokens."""
GROUP_ROWS = 1 << 17
"""Minimum number of rows in a group, unless the corpus has fewer."""
MIXTURE_PERIOD = 1 << 14
"""Rows after which the pattern of a mixture repeats; in these, weights are met to within 1."""

# A key that starts with one of these numbers draws for one purpose only.
_PERMUTE_WINDOWS, _PLAN_BLOCK, _PERMUTE_ROWS = range(3)
_CACHED_GROUPS = 2


class Group(NamedTuple):
    """The text and the planned rows of a group."""

    tokens: np.ndarray  # Token ids [tokens], uint16 or uint32
    plan: RowPlan
    """Rows as ranges of ``tokens``."""
    order: np.ndarray  # int64 [rows]: the planned row at each position in the order of the group
    left_out: np.ndarray  # int64 [2 x windows]: bounds of the ranges of ``tokens`` without text
    word_starts: np.ndarray | None
    """bool [tokens]: whether a word begins at the token; None if the corpus does not tell."""
    labels: np.ndarray | None  # Labels [tokens]; None if the corpus has none


class RowsOfGroup(NamedTuple):
    """Those of the requested rows that belong to one group."""

    epoch: int
    group: int
    rows: np.ndarray  # int64 [n]: indices into the array of requested rows
    places: np.ndarray  # int64 [n]: positions of these rows in the order of the group


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
        self._first_rows = [0]  # Number of rows before each epoch, and after the last one
        self._lock = threading.RLock()
        self._groups: dict[tuple[int, int], Group] = {}

    def locate(self, rows: np.ndarray) -> list[RowsOfGroup]:
        """Finds the groups of rows, int64 [n], which are numbered from the first epoch on."""
        with self._lock:
            while self._first_rows[-1] <= int(rows.max(initial=0)):
                self._add_epoch()
        located = []
        epochs = np.searchsorted(self._first_rows, rows, side="right") - 1
        for number in np.unique(epochs).tolist():
            epoch = self._epochs[number]
            requested = np.flatnonzero(epochs == number)
            row_of_epoch = rows[requested] - self._first_rows[number]
            first_rows = epoch.rows[epoch.groups]
            groups = np.searchsorted(first_rows, row_of_epoch, side="right") - 1
            for group in np.unique(groups).tolist():
                in_group = groups == group
                places = row_of_epoch[in_group] - first_rows[group]
                located.append(RowsOfGroup(number, group, requested[in_group], places))
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

    def rows_with(self, window: int, epoch: int, group: int) -> np.ndarray:
        """The rows of a group, int64, that hold text of a window of the corpus."""
        plan, windows = self._planned(epoch, group)
        bounds = self._bounds(windows, {window})
        holds = inside(plan.a_start, bounds) | ((plan.b_size > 0) & inside(plan.b_start, bounds))
        planned = np.repeat(np.arange(plan.rows), np.diff(plan.first))[holds]
        places = np.flatnonzero(np.isin(self._permuted_rows(epoch, group, plan.rows), planned))
        found = self._epochs[epoch]
        return self._first_rows[epoch] + found.rows[found.groups[group]] + places

    def places(self, epoch: int, group: int, tokens: np.ndarray) -> list[Place]:
        """The documents that hold some tokens of the text of a group."""
        found = self._epochs[epoch]
        windows = found.windows_of(*found.groups[group : group + 2].tolist())
        sizes = [self.corpus.tokens_in([window]) for window in windows]
        ends = np.cumsum(sizes)
        number = np.searchsorted(ends, tokens, side="right")
        within = tokens - ends[number] + np.array(sizes)[number]
        pairs = zip(number.tolist(), within.tolist(), strict=True)
        return [self.corpus.place(windows[n], token) for n, token in pairs]

    def digest(self) -> str:
        """Hash of the first epoch's windows and row counts and of its first block's rows.

        It changes with the corpus, the seed and the plan, and with any change of this code or of
        numpy that changes the order.
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
        key = counter_rng.key(self.key, _PLAN_BLOCK, epoch, block)
        return plan_rows(*self.corpus.lengths(windows), self.settings, key)

    def _permuted_rows(self, epoch: int, group: int, rows: int) -> np.ndarray:
        key = counter_rng.key(self.key, _PERMUTE_ROWS, epoch, group)
        return counter_rng.permutation(key, rows)

    def _make_group(self, number: int, group: int) -> Group:
        plan, windows = self._planned(number, group)
        ids, word_starts, labels = self.corpus.tokens(windows)
        order = self._permuted_rows(number, group, plan.rows)
        left_out = self._bounds(windows, self.corpus.left_out)
        return Group(ids, plan, order, left_out, word_starts, labels)

    def _bounds(self, windows: list[int], chosen: Collection[int]) -> np.ndarray:
        """First and last token (exclusive) of the chosen windows in the text of a group."""
        if not chosen:
            return np.zeros(0, np.int64)
        ends = np.cumsum([self.corpus.tokens_in([window]) for window in windows])
        pairs = zip(windows, [0, *ends[:-1].tolist()], ends.tolist(), strict=True)
        return np.array([(start, end) for w, start, end in pairs if w in chosen], int).ravel()

    def _planned(self, number: int, group: int) -> tuple[RowPlan, list[int]]:
        """The plan of a group, and its windows."""
        epoch = self._epochs[number]
        first_block, end_block = epoch.groups[group : group + 2].tolist()
        plans, sequences, tokens = [], 0, 0
        for block in range(first_block, end_block):
            windows = epoch.windows_of(block, block + 1)
            plan = self._plan(windows, number, block)
            shifted = plan._replace(
                first=plan.first + sequences,
                a_start=plan.a_start + tokens,
                b_start=plan.b_start + tokens,
            )
            if plans:
                # The end of the previous block's last row is the start of this block's first row.
                shifted = shifted._replace(first=shifted.first[1:])
            plans.append(shifted)
            sequences += len(plan.a_start)
            tokens += self.corpus.tokens_in(windows)
        plan = RowPlan(*(np.concatenate(columns) for columns in zip(*plans, strict=True)))
        return plan, epoch.windows_of(first_block, end_block)

    def _add_epoch(self) -> None:
        number = len(self._epochs)
        key = counter_rng.key(self.key, _PERMUTE_WINDOWS, number)
        windows = counter_rng.permutation(key, self.corpus.num_windows)
        rows = np.concatenate([[0], np.cumsum(self._row_counts(number, windows))])
        if not rows[-1]:
            raise DataError(f"{self.corpus.directory} holds no rows: prepare more text")
        blocks, groups = len(rows) - 1, [0]
        while groups[-1] < blocks:
            end = int(np.searchsorted(rows, rows[groups[-1]] + GROUP_ROWS))
            groups.append(min(end, blocks))
        # A last group with too few rows joins the group before it.
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
        # The counts only save time, so a folder that cannot be read or written is not an error.
        with contextlib.suppress(StorageError):
            stored = files.read(path) if path else None
            if stored and len(stored) == 8 * len(blocks):
                return np.frombuffer(stored, "<i8")
        plans = (self._plan(block.tolist(), epoch, number) for number, block in enumerate(blocks))
        counts = np.array([plan.rows for plan in plans], "<i8")
        with contextlib.suppress(StorageError):
            if path:
                files.write(path, counts.tobytes())
        return counts

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_groups": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())


class Mixture:
    """Takes rows from several corpora in proportion to weights, by a pattern that repeats."""

    def __init__(self, weights: Sequence[float], key: int) -> None:
        exact = np.array(weights, float) / sum(weights) * MIXTURE_PERIOD
        counts = np.maximum(np.floor(exact), 1).astype(np.int64)
        # Rounding down leaves some rows over: they go to the corpora that lost most by it. But
        # giving every corpus at least one row may also take too many, from the largest.
        missing = MIXTURE_PERIOD - int(counts.sum())
        if missing > 0:
            counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
        for _ in range(-missing):
            counts[np.argmax(counts)] -= 1
        self._counts = counts
        sorted_pattern = np.repeat(np.arange(len(counts)), counts)
        self.pattern = sorted_pattern[counter_rng.permutation(key, MIXTURE_PERIOD)]
        """Number of the corpus of each row of a period, int64 [MIXTURE_PERIOD]."""
        self._earlier = np.zeros(MIXTURE_PERIOD, np.int64)  # earlier rows of the same corpus
        for corpus, count in enumerate(counts.tolist()):
            self._earlier[self.pattern == corpus] = np.arange(count)

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corpus of each row of the phase, and the row's number among the rows of it."""
        period, place = np.divmod(rows, MIXTURE_PERIOD)
        corpus = self.pattern[place]
        return corpus, period * self._counts[corpus] + self._earlier[place]

    def rows_of(self, corpus: int, numbers: np.ndarray) -> np.ndarray:
        """The row of the phase of each number of a row of a corpus: the inverse of `locate`."""
        period, number = np.divmod(numbers, self._counts[corpus])
        return period * MIXTURE_PERIOD + np.flatnonzero(self.pattern == corpus)[number]
