"""Rows of a batch, filled when they are read.

``RowMaker.batch`` is a pure function of (seed, phase, step, row numbers): it finds the planned
rows, swaps segments, lays the pairs out, draws masks and replacements. A host asks for its own
rows only and gets what they are in the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data import counter_rng as random
from albert_jax.data.batches import masking
from albert_jax.data.batches.order import Group, RowOrder
from albert_jax.data.batches.packing import pairs_per_row
from albert_jax.data.batches.row_plan import PlanSettings
from albert_jax.data.corpus.corpus import Corpus, check_vocabulary
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import ConfigError

Batch = dict[str, np.ndarray]

MIXTURE_PERIOD = 1 << 14
"""Rows after which the pattern of a mixture repeats; weights are met to 1 in this number."""

_ORDER, _MIXTURE, _SWAP, _RATE, _MASK, _REPLACE = range(6)


def slots(phase: PhaseConfig) -> tuple[int, int]:
    """(P, K): masked positions and pairs of a row, static in a phase."""
    return phase.max_predictions_per_seq, pairs_per_row(
        phase.sequence_length
    ) if phase.packing else 1


def batch_shapes(phase: PhaseConfig, rows: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array of a batch of ``rows`` rows."""
    masked, pairs = slots(phase)
    whole, integer, real = phase.sequence_length, np.dtype(np.int32), np.dtype(np.float32)
    return {
        "input_ids": ((rows, whole), integer),
        "token_type_ids": ((rows, whole), integer),
        "segment_ids": ((rows, whole), integer),
        "positions": ((rows, whole), integer),
        "mlm_positions": ((rows, masked), integer),
        "mlm_labels": ((rows, masked), integer),
        "mlm_weights": ((rows, masked), real),
        "cls_positions": ((rows, pairs), integer),
        "sop_labels": ((rows, pairs), integer),
        "sop_weights": ((rows, pairs), real),
    }


def empty_batch(phase: PhaseConfig, rows: int) -> Batch:
    """Filler rows: no token, no weight."""
    return {k: np.zeros(shape, kind) for k, (shape, kind) in batch_shapes(phase, rows).items()}


class RowMaker:
    """Makes the rows of one phase.

    ``corpora`` in the order of ``phase.mixture`` (empty: weights by tokens). ``phase_index``
    keeps the phases of a run apart. ``counts`` names a folder for the row counts of epochs
    (:class:`RowOrder`). Raises DataError for a corpus of another vocabulary. May be pickled and
    used by several threads.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        vocabulary: Vocabulary,
        phase: PhaseConfig,
        *,
        seed: int,
        phase_index: int,
        counts: str | None = None,
    ) -> None:
        if not corpora:
            raise ConfigError("data.prepared is empty: name a folder made by `data prepare`")
        if phase.mixture and len(phase.mixture) != len(corpora):
            raise ConfigError(
                f"mixture has {len(phase.mixture)} weights for {len(corpora)} folders in "
                "data.prepared: give one each"
            )
        for corpus in corpora:
            check_vocabulary(corpus, vocabulary)
        self.phase = phase
        self.vocab_size, self.mask_id = vocabulary.size, vocabulary.mask_id
        self.cls_id, self.sep_id, self.pad_id = (
            vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id,
        )  # fmt: skip
        self.starts_word = np.asarray(vocabulary.starts_word, bool)
        self.key = random.key(seed, phase_index)
        objective = phase.objective
        settings = PlanSettings(
            phase.sequence_length, phase.short_seq_prob, objective.sentence_order, phase.packing
        )
        self.orders = [
            RowOrder(corpus, settings, random.key(self.key, _ORDER, number), counts)
            for number, corpus in enumerate(corpora)
        ]
        weights = phase.mixture or tuple(float(corpus.num_tokens) for corpus in corpora)
        self._pattern, self._rank = _mixture(weights, random.key(self.key, _MIXTURE))

    def batch(self, step: int, rows: np.ndarray) -> Batch:
        """Rows ``rows`` (int [n], numbers below phase.batch_size) of batch ``step`` of the phase.

        Raises DataError for a damaged record.
        """
        rows = np.asarray(rows, np.int64)
        number = step * self.phase.batch_size + rows
        which = self._pattern[number % MIXTURE_PERIOD]
        batch = empty_batch(self.phase, len(rows))
        for corpus in np.unique(which).tolist():
            chosen = np.flatnonzero(which == corpus)
            turn = number[chosen]
            count = int((self._pattern == corpus).sum())
            own = turn // MIXTURE_PERIOD * count + self._rank[turn % MIXTURE_PERIOD]
            order = self.orders[corpus]
            for epoch, group, inside, place in order.locate(own):
                self._fill(batch, step, rows, chosen[inside], order.group(epoch, group), place)
        return batch

    def rows_per_epoch(self) -> int:
        """Rows of the first epoch of all corpora together."""
        return sum(order.epoch_rows(0) for order in self.orders)

    def order_hash(self) -> str:
        """Hash of the order of all rows; a resumed run must find the same."""
        digest = hashlib.sha256(self._pattern.tobytes())
        for order in self.orders:
            digest.update(order.digest().encode())
        return digest.hexdigest()

    def _fill(
        self, batch: Batch, step: int, rows: np.ndarray, at: np.ndarray, group: Group,
        place: np.ndarray,
    ) -> None:  # fmt: skip
        """Writes rows ``at`` of the batch, which are planned rows ``place`` of a group."""
        plan, objective, length = group.plan, self.phase.objective, self.phase.sequence_length
        planned = group.order[place]
        pairs_of = plan.first[planned + 1] - plan.first[planned]
        row = np.repeat(np.arange(len(at)), pairs_of)
        slot = _within(pairs_of)
        pair = plan.first[planned][row] + slot
        draws = [
            random.bits(random.bits(random.key(self.key, kind, step), rows[at])[row], slot)
            for kind in (_SWAP, _MASK)
        ]
        sizes = np.stack([plan.a_size[pair], plan.b_size[pair]])
        starts = np.stack([plan.a_start[pair], plan.b_start[pair]])
        label, weight = plan.label[pair], plan.weight[pair]
        if objective.sentence_order == "sop":
            swapped = (draws[0] >> np.uint64(63) == 1) & (weight > 0) & (label == 0)
            label = label | swapped
            sizes[:, swapped] = sizes[::-1, swapped]
            starts[:, swapped] = starts[::-1, swapped]

        # Places in the batch, counted over all its flattened rows.
        pair_size = sizes.sum(axis=0) + 2 + (sizes[1] > 0)
        ends = np.cumsum(pair_size)
        row_first = np.cumsum(pairs_of) - pairs_of
        in_row = ends - pair_size - (ends - pair_size)[row_first][row]
        first = at[row] * length + in_row
        text_starts = np.stack([first + 1, first + 2 + sizes[0]])
        segment_sizes = sizes.T.ravel()
        source = _ranges(starts.T.ravel(), segment_sizes)
        target = _ranges(text_starts.T.ravel(), segment_sizes)
        ids = group.tokens[source].astype(np.int32)

        inputs = batch["input_ids"].reshape(-1)
        if self.pad_id:
            batch["input_ids"][at] = self.pad_id
        inputs[target] = ids
        inputs[first] = self.cls_id
        inputs[first + 1 + sizes[0]] = self.sep_id
        inputs[first + pair_size - 1] = self.sep_id
        whole = _ranges(first, pair_size)
        batch["positions"].reshape(-1)[whole] = whole - np.repeat(_small(first), pair_size)
        batch["segment_ids"].reshape(-1)[whole] = np.repeat(_small(slot + 1), pair_size)
        second_size = np.where(sizes[1] > 0, sizes[1] + 1, 0)
        batch["token_type_ids"].reshape(-1)[_ranges(first + 2 + sizes[0], second_size)] = 1
        batch["cls_positions"][at[row], slot] = in_row
        batch["sop_labels"][at[row], slot] = label
        batch["sop_weights"][at[row], slot] = weight
        self._mask(batch, step, rows, at, row, pair_size, sizes, ids, target, draws[1])

    def _mask(
        self, batch: Batch, step: int, rows: np.ndarray, at: np.ndarray, row: np.ndarray,
        pair_size: np.ndarray, sizes: np.ndarray, ids: np.ndarray, target: np.ndarray,
        keys: np.ndarray,
    ) -> None:  # fmt: skip
        """Masks the text of the pairs just written: ``ids`` at flat places ``target``."""
        objective, length = self.phase.objective, self.phase.sequence_length
        masked = batch["mlm_positions"].shape[1]
        rates = np.full(len(at), objective.mask_rate)
        if objective.uniform_mask_rate:
            draws = random.bits(random.key(self.key, _RATE, step), rows[at])
            rates *= 1.0 - random.uniform(draws)
        if self.phase.packing:
            budget = masking.shared_budgets(pair_size, row, rates[row], masked)
        else:
            budget = masking.budgets(pair_size, rates, masked)
        text = sizes.sum(axis=0)
        if objective.mask_unit in ("ngram", "word"):
            begins = self.starts_word[ids]
            bounds = np.cumsum(sizes.T.ravel())
            begins[0] = True
            begins[bounds[bounds < len(ids)]] = True
        else:
            begins = np.ones(len(ids), bool)
        word_sizes, words = masking.word_sizes_of(begins, text)
        several = objective.mask_unit in ("ngram", "span")
        ngrams = masking.choose_ngrams(
            word_sizes, words, budget, keys,
            max_ngram=objective.max_ngram if several else 1, law=objective.ngram_distribution,
        )  # fmt: skip
        chosen = masking.masked_tokens(ngrams, word_sizes)
        place, labels = target[chosen], ids[chosen]
        line, column = np.divmod(place, length)
        counts = np.bincount(np.searchsorted(at, line), minlength=len(at))
        slot = _within(counts)
        batch["mlm_positions"][line, slot] = column
        batch["mlm_labels"][line, slot] = labels
        batch["mlm_weights"][line, slot] = 1.0
        draws = random.bits(random.bits(random.key(self.key, _REPLACE, step), rows[line]), column)
        batch["input_ids"].reshape(-1)[place] = masking.replace(
            labels, draws, self.mask_id, self.vocab_size
        )


def _small(values: np.ndarray) -> np.ndarray:
    """As int32: places in a batch and tokens of a group fit, and the passes take half as long."""
    return values.astype(np.int32)


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start to start + size - 1 for each range, one after the other, int32."""
    ends = np.cumsum(sizes)
    shifts = np.repeat(_small(starts - ends + sizes), sizes)
    shifts += np.arange(len(shifts), dtype=np.int32)
    return shifts


def _within(sizes: np.ndarray) -> np.ndarray:
    """0 to size - 1 for each size, one after the other."""
    return _ranges(np.zeros(len(sizes), np.int64), sizes)


def _mixture(weights: Sequence[float], key: int) -> tuple[np.ndarray, np.ndarray]:
    """The repeating pattern of a mixture: corpus of each row, and its rank within that corpus."""
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
    pattern = pattern[random.permutation(key, MIXTURE_PERIOD)]
    rank = np.zeros(MIXTURE_PERIOD, np.int64)
    for corpus in range(len(counts)):
        here = np.flatnonzero(pattern == corpus)
        rank[here] = np.arange(len(here))
    return pattern, rank
