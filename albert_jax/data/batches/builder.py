"""Builds batches: finds the planned rows, swaps segments, lays sequences out and masks them.

`BatchBuilder.batch` is a pure function of (seed, phase, step, row numbers). A host asks for its
own rows only and gets them as they are in the whole batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data import counter_rng
from albert_jax.data.batches import masking
from albert_jax.data.batches.batch import Batch, empty_batch
from albert_jax.data.batches.order import Group, Mixture, RowOrder
from albert_jax.data.batches.row_plan import PlanSettings
from albert_jax.data.corpus.corpus import Corpus, check_vocabulary
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError

_ORDER, _MIXTURE, _SWAP, _RATE, _MASK, _REPLACE = range(6)
"""Purposes of random draws."""


@dataclass(frozen=True)
class _Rows:
    """Rows that are written together, R of them, and their N sequences in the order of the rows."""

    step: int
    index: np.ndarray  # [R]: index of each row in the batch that is being built, ascending
    number: np.ndarray  # [R]: number of each row in the whole batch of the step
    row: np.ndarray  # [N]: which of the R rows holds the sequence
    slot: np.ndarray  # [N]: number of the sequence within its row
    starts: np.ndarray  # [2, N]: first tokens of the segments A and B in the text of the group
    sizes: np.ndarray  # [2, N]: tokens of the segments; 0 for a B that is absent
    labels: np.ndarray  # [N]: sentence-order labels
    weights: np.ndarray  # float32 [N]: their weights

    @property
    def lengths(self) -> np.ndarray:
        """[N]: tokens of each sequence with its special tokens."""
        return self.sizes.sum(axis=0) + 2 + (self.sizes[1] > 0)

    def draws(self, key: int) -> np.ndarray:
        """uint64 [N]: random bits of each sequence."""
        by_row = counter_rng.bits(key, self.number)
        return counter_rng.bits(by_row[self.row], self.slot)


class BatchBuilder:
    """Builds the batches of one phase. It may be pickled and used by several threads.

    ``corpora`` are in the order of ``phase.mixture``; without a mixture they are weighted by their
    tokens. Phases of a run with other numbers ``phase_index`` have other draws. ``counts`` is the
    folder of RowOrder. Raises DataError for a corpus that was prepared with another vocabulary.
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
        for corpus in corpora:
            check_vocabulary(corpus, vocabulary)
        self.phase, self.phase_index = phase, phase_index
        self.vocab_size, self.mask_id = vocabulary.size, vocabulary.mask_id
        self.cls_id, self.sep_id = vocabulary.cls_id, vocabulary.sep_id
        self.pad_id = vocabulary.pad_id
        self.starts_word = np.asarray(vocabulary.starts_word, bool)
        self.key = counter_rng.key(seed, phase_index)
        order = phase.objective.sentence_order
        settings = PlanSettings(phase.sequence_length, phase.short_seq_prob, order, phase.packing)
        self.orders = [
            RowOrder(corpus, settings, counter_rng.key(self.key, _ORDER, number), counts)
            for number, corpus in enumerate(corpora)
        ]
        weights = phase.mixture or tuple(float(corpus.num_tokens) for corpus in corpora)
        self.mixture = Mixture(weights, counter_rng.key(self.key, _MIXTURE))

    def batch(self, step: int, rows: np.ndarray) -> Batch:
        """The rows numbered ``rows``, below phase.batch_size, of batch number ``step``.

        Steps count from 0 in each phase. Raises DataError for a damaged record.
        """
        rows = np.asarray(rows, np.int64)
        in_phase = step * self.phase.batch_size + rows
        corpus_of = self.mixture.corpus_of(in_phase)
        batch = empty_batch(self.phase, len(rows))
        for corpus in np.unique(corpus_of).tolist():
            index = np.flatnonzero(corpus_of == corpus)
            order = self.orders[corpus]
            in_corpus = self.mixture.rows_within(corpus, in_phase[index])
            for part in order.locate(in_corpus):
                written = index[part.rows]
                try:
                    group = order.group(part.epoch, part.group)
                except DataError as error:
                    where = "held-out text" if self.phase_index < 0 else f"phase {self.phase_index}"
                    row = rows[written[0]]
                    raise DataError(f"row {row} of batch {step} of {where}: {error}") from error
                self._write(batch, group, self._rows(step, rows, written, group, part.places))
        return batch

    def rows_per_epoch(self) -> int:
        """Number of rows of the first epoch of all corpora together."""
        return sum(order.epoch_rows(0) for order in self.orders)

    def order_hash(self) -> str:
        """Hash of the order of all rows, which must be the same when a run is resumed."""
        digest = hashlib.sha256(self.mixture.pattern.tobytes())
        for order in self.orders:
            digest.update(order.digest().encode())
        return digest.hexdigest()

    def _rows(
        self, step: int, rows: np.ndarray, index: np.ndarray, group: Group, places: np.ndarray
    ) -> _Rows:
        """The rows of a batch at ``index``, which stand at ``places`` in the order of a group."""
        plan = group.plan
        planned = group.order[places]
        sequences_of_row = plan.first[planned + 1] - plan.first[planned]
        row = np.repeat(np.arange(len(index)), sequences_of_row)
        slot = _within(sequences_of_row)
        sequence = plan.first[planned][row] + slot
        described = _Rows(
            *(step, index, rows[index], row, slot),
            starts=np.stack([plan.a_start[sequence], plan.b_start[sequence]]),
            sizes=np.stack([plan.a_size[sequence], plan.b_size[sequence]]),
            labels=plan.label[sequence],
            weights=plan.weight[sequence],
        )
        if self.phase.objective.sentence_order == "sop":
            draws = described.draws(counter_rng.key(self.key, _SWAP, step))
            swapped = (draws >> np.uint64(63) == 1) & (described.weights > 0)
            described.labels[swapped] = 1
            for array in (described.starts, described.sizes):
                array[:, swapped] = array[::-1, swapped]
        return described

    def _write(self, batch: Batch, group: Group, rows: _Rows) -> None:
        """Writes the sequences of the rows into the batch."""
        # Positions count through the flattened rows of the batch, unless stated otherwise.
        sizes, lengths = rows.sizes, rows.lengths
        before = np.cumsum(lengths) - lengths
        cls_positions = before - before[np.searchsorted(rows.row, rows.row)]  # within the row
        batch_row = rows.index[rows.row]
        first = batch_row * self.phase.sequence_length + cls_positions
        first_sep, last_sep = first + 1 + sizes[0], first + lengths - 1
        segment_sizes = sizes.T.ravel()
        source = _ranges(rows.starts.T.ravel(), segment_sizes)
        target = _ranges(np.stack([first + 1, first_sep + 1]).T.ravel(), segment_sizes)
        ids = group.tokens[source].astype(np.int32)

        if self.pad_id:
            batch["input_ids"][rows.index] = self.pad_id
        inputs = batch["input_ids"].reshape(-1)
        inputs[target] = ids
        inputs[first] = self.cls_id
        inputs[first_sep] = self.sep_id
        inputs[last_sep] = self.sep_id
        covered = _ranges(first, lengths)
        batch["positions"].reshape(-1)[covered] = covered - np.repeat(first, lengths)
        batch["segment_ids"].reshape(-1)[covered] = np.repeat(rows.slot + 1, lengths)
        b_and_sep = _ranges(first_sep + 1, last_sep - first_sep)
        batch["token_type_ids"].reshape(-1)[b_and_sep] = 1
        batch["cls_positions"][batch_row, rows.slot] = cls_positions
        batch["sop_labels"][batch_row, rows.slot] = rows.labels
        batch["sop_weights"][batch_row, rows.slot] = rows.weights
        self._mask(batch, rows, ids, target)

    def _mask(self, batch: Batch, rows: _Rows, ids: np.ndarray, target: np.ndarray) -> None:
        """Masks the text of the rows, its token ids and their positions in the flattened batch."""
        objective = self.phase.objective
        word_sizes, words = masking.word_sizes_of(
            self._word_starts(ids, rows.sizes), rows.sizes.sum(axis=0)
        )
        several = objective.mask_unit in ("ngram", "span")
        ngrams = masking.choose_ngrams(
            word_sizes,
            words,
            self._budgets(rows, slots=batch["mlm_positions"].shape[1]),
            rows.draws(counter_rng.key(self.key, _MASK, rows.step)),
            max_ngram=objective.max_ngram if several else 1,
            distribution=objective.ngram_distribution,
        )
        chosen = masking.masked_tokens(ngrams, word_sizes)
        position, labels = target[chosen], ids[chosen]
        batch_row, column = np.divmod(position, self.phase.sequence_length)
        row = np.searchsorted(rows.index, batch_row)
        slot = _within(np.bincount(row, minlength=len(rows.index)))
        batch["mlm_positions"][batch_row, slot] = column
        batch["mlm_labels"][batch_row, slot] = labels
        batch["mlm_weights"][batch_row, slot] = 1.0
        by_row = counter_rng.bits(counter_rng.key(self.key, _REPLACE, rows.step), rows.number[row])
        batch["input_ids"].reshape(-1)[position] = masking.replace(
            labels, counter_rng.bits(by_row, column), self.mask_id, self.vocab_size
        )

    def _budgets(self, rows: _Rows, slots: int) -> np.ndarray:
        """Number of tokens to mask in each sequence, int64 [N]."""
        objective = self.phase.objective
        rates = np.full(len(rows.index), objective.mask_rate)
        if objective.uniform_mask_rate:
            draws = counter_rng.bits(counter_rng.key(self.key, _RATE, rows.step), rows.number)
            rates *= 1.0 - counter_rng.uniform(draws)
        if self.phase.packing:
            return masking.shared_budgets(rows.lengths, rows.row, rates[rows.row], slots)
        return masking.budgets(rows.lengths, rates, slots)

    def _word_starts(self, ids: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """bool [tokens]: which tokens start a unit of masking; each segment starts one."""
        if self.phase.objective.mask_unit not in ("ngram", "word"):
            return np.ones(len(ids), bool)
        starts = self.starts_word[ids]
        starts[0] = True
        ends = np.cumsum(sizes.T.ravel())
        starts[ends[ends < len(ids)]] = True
        return starts


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """start to start + size - 1 for each range, one after the other, int32 (half the memory)."""
    ends = np.cumsum(sizes)
    numbers = np.repeat((starts - ends + sizes).astype(np.int32), sizes)
    numbers += np.arange(len(numbers), dtype=np.int32)
    return numbers


def _within(sizes: np.ndarray) -> np.ndarray:
    """0 to size - 1 for each size, one after the other."""
    return _ranges(np.zeros(len(sizes), np.int64), sizes)
