"""Builds batches: finds the planned rows, swaps segments, writes sequences and masks them.

`BatchBuilder.batch` is a pure function of (seed, phase, step, row numbers). A host builds only its
own rows, and they are the same as in the complete batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data import counter_rng
from albert_jax.data.batches import batch as arrays
from albert_jax.data.batches import masking
from albert_jax.data.batches.order import Group, Mixture, RowOrder, RowsOfGroup
from albert_jax.data.batches.row_plan import count_up, inside, ranges, sequence_lengths, settings_of
from albert_jax.data.corpus.columns import Tokens
from albert_jax.data.corpus.corpus import Corpus, Place, check_labels, check_vocabulary
from albert_jax.data.corpus.shards import DamagedRecord
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import DataError

# A key that starts with one of these numbers draws for one purpose only.
_ORDER, _MIXTURE, _SWAP, _MASK_RATE, _CHOOSE_NGRAMS, _REPLACE, _SOFTMAX = range(7)

SHOWN_ROWS = 8
"""Most rows that a message about a damaged record names."""


@dataclass(frozen=True)
class _Rows:
    """R rows of one group that are written into a batch, and their N sequences, row by row."""

    step: int
    index: np.ndarray  # [R]: position of each row in the batch that is built, ascending
    number: np.ndarray  # [R]: number of each row in the complete batch of the step
    row: np.ndarray  # [N]: which of the R rows contains the sequence
    slot: np.ndarray  # [N]: number of the sequence within its row
    starts: np.ndarray  # [2, N]: first tokens of the segments A and B in the text of the group
    sizes: np.ndarray  # [2, N]: tokens of the segments A and B; 0 if there is no B
    labels: np.ndarray  # [N]: sentence-order labels
    weights: np.ndarray  # float32 [N]: their weights
    lengths: np.ndarray  # [N]: tokens of each sequence with its special tokens

    def inside(self, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row in the batch and slot of each sequence with text inside the bounds."""
        found = (inside(self.starts, bounds) & (self.sizes > 0)).any(axis=0)
        return self.index[self.row[found]], self.slot[found]

    def draws(self, key: int) -> np.ndarray:
        """uint64 [N]: random bits of each sequence."""
        by_row = counter_rng.bits(key, self.number)
        return counter_rng.bits(by_row[self.row], self.slot)


class BatchBuilder:
    """Builds the batches of one phase. It may be pickled and used by several threads.

    ``corpora`` are in the order of ``phase.mixture``; without a mixture they are weighted by their
    tokens. Phases of a run with other numbers ``phase_index`` have other draws. ``counts`` is the
    folder of RowOrder, ``first_step`` the steps of the run before this phase (for messages). Raises
    DataError for a corpus that was prepared with another vocabulary or has other labels.

    A sequence with text of a record that the corpus leaves out becomes padding without weights. All
    other sequences are those of undamaged text.
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
        first_step: int = 0,
    ) -> None:
        for corpus in corpora:
            check_vocabulary(corpus, vocabulary)
        check_labels(corpora, needed=phase.objective.word_prediction != "none")
        self.phase, self.phase_index, self.first_step = phase, phase_index, first_step
        self.vocab_size, self.mask_id = vocabulary.size, vocabulary.mask_id
        self.cls_id, self.sep_id = vocabulary.cls_id, vocabulary.sep_id
        self.pad_id, self.special_tokens = vocabulary.pad_id, vocabulary.cls_id >= 0
        self.separator_id = vocabulary.separator_id
        self.starts_word = np.asarray(vocabulary.starts_word, bool)
        self.key = counter_rng.key(seed, phase_index)
        settings = settings_of(phase, special_tokens=self.special_tokens)
        self.orders = [
            RowOrder(corpus, settings, counter_rng.key(self.key, _ORDER, number), counts)
            for number, corpus in enumerate(corpora)
        ]
        weights = phase.mixture or tuple(float(corpus.num_tokens) for corpus in corpora)
        self.mixture = Mixture(weights, counter_rng.key(self.key, _MIXTURE))

    def batch(self, step: int, rows: np.ndarray, *, columns: bool = False) -> arrays.Batch:
        """The rows numbered ``rows``, below phase.batch_size, of batch number ``step``.

        Steps count from 0 in each phase. With ``columns`` the batch also has those of the corpora:
        ``word_starts`` bool [B, S], and ``labels`` int32 [B, S], which is NO_LABEL outside of text.
        Raises DataError for a damaged record, with the rows of the step that hold its text.
        """
        rows = np.asarray(rows, np.int64)
        corpus_of, row_of = self.mixture.locate(step * self.phase.batch_size + rows)
        batch = arrays.empty_batch(self.phase, len(rows))
        if columns:
            batch |= arrays.empty_columns(
                self.phase, len(rows), [o.corpus.columns for o in self.orders]
            )
        for corpus in np.unique(corpus_of).tolist():
            of_corpus = np.flatnonzero(corpus_of == corpus)
            order = self.orders[corpus]
            for located in order.locate(row_of[of_corpus]):
                index = of_corpus[located.rows]
                try:
                    group = order.group(located.epoch, located.group)
                except DamagedRecord as error:
                    place = self._place_of_damage(error.window, corpus, located, step)
                    where = "held-out text" if self.phase_index < 0 else f"phase {self.phase_index}"
                    raise DataError(
                        f"row {rows[index[0]]} of batch {step} of {where}: {error}{place}; "
                        "albert-jax pretrain ... --data.on-damage skip leaves its documents out"
                    ) from error
                planned = self._planned_rows(step, rows, index, group, located.places)
                text, positions = self._write(batch, group, planned)
                self._mask(batch, planned, text, positions)
                if len(group.left_out):
                    lost = planned.inside(group.left_out)
                    arrays.clear_sequences(batch, self.phase, *lost, pad_id=self.pad_id)
        arrays.set_word_weights(batch, self.phase)
        arrays.set_softmax_seed(batch, self._key(_SOFTMAX, step))
        return batch

    def documents(self, step: int, row: int) -> list[Place]:
        """The documents in a row of batch number ``step``, in the order of its segments."""
        rows = np.array([row])
        [corpus], numbers = self.mixture.locate(step * self.phase.batch_size + rows)
        order = self.orders[corpus]
        [found] = order.locate(numbers)
        group = order.group(found.epoch, found.group)
        planned = self._planned_rows(step, rows, np.array([0]), group, found.places)
        starts = planned.starts.T[planned.sizes.T > 0]
        return list(dict.fromkeys(order.places(found.epoch, found.group, starts)))

    def rows_per_epoch(self) -> int:
        """Number of rows of the first epoch of all corpora together."""
        return sum(order.epoch_rows(0) for order in self.orders)

    def order_hash(self) -> str:
        """Hash of the order of all rows, which must be the same when a run is resumed."""
        digest = hashlib.sha256(self.mixture.pattern.tobytes())
        for order in self.orders:
            digest.update(order.digest().encode())
        return digest.hexdigest()

    def _place_of_damage(self, window: int, corpus: int, found: RowsOfGroup, step: int) -> str:
        """The next rows of the phase that hold text of a window, as the end of a message."""
        numbers = self.orders[corpus].rows_with(window, found.epoch, found.group)
        rows_of_phase = np.sort(self.mixture.rows_of(corpus, numbers))
        steps, rows = np.divmod(rows_of_phase, self.phase.batch_size)
        to_come = (step <= steps) & (steps < self.phase.steps)
        steps, rows = steps[to_come], rows[to_come]
        if self.phase_index < 0:
            return ""
        if not len(steps):
            return "; no later row of the phase holds its text"
        first = rows[steps == steps[0]].tolist()
        shown = ", ".join(map(str, first[:SHOWN_ROWS])) + ", ..." * (len(first) > SHOWN_ROWS)
        number = self.first_step + int(steps[0]) + 1
        return f"; step {number} reads its text in row {shown} (rows in all: {len(steps)})"

    def _key(self, purpose: int, step: int) -> int:
        return counter_rng.key(self.key, purpose, step)

    def _planned_rows(
        self, step: int, rows: np.ndarray, index: np.ndarray, group: Group, places: np.ndarray
    ) -> _Rows:
        """The rows at ``places`` in the order of a group, which come to ``index`` in the batch."""
        plan = group.plan
        planned = group.order[places]
        sequences_of_row = plan.first[planned + 1] - plan.first[planned]
        row = np.repeat(np.arange(len(index)), sequences_of_row)
        slot = count_up(sequences_of_row)
        sequence = plan.first[planned][row] + slot
        sizes = np.stack([plan.a_size[sequence], plan.b_size[sequence]])
        starts = np.stack([plan.a_start[sequence], plan.b_start[sequence]])
        described = _Rows(
            *(step, index, rows[index], row, slot, starts, sizes),
            labels=plan.label[sequence],
            weights=plan.weight[sequence],
            lengths=sequence_lengths(sizes[0], sizes[1], special_tokens=self.special_tokens),
        )
        if self.phase.objective.sentence_order == "sop":
            coins = described.draws(self._key(_SWAP, step)) >> np.uint64(63)
            swapped = (coins == 1) & (described.weights > 0)
            described.labels[swapped] = 1
            for segments in (described.starts, described.sizes):
                segments[:, swapped] = segments[::-1, swapped]
        return described

    def _write(self, batch: arrays.Batch, group: Group, rows: _Rows) -> tuple[Tokens, np.ndarray]:
        """Writes the sequences into the batch; returns the tokens of their text and its positions.

        These and all other positions here count through the rows of the batch, one after the
        other, except those in the batch itself, which count within a row.
        """
        sizes, lengths = rows.sizes, rows.lengths
        tokens_before = np.cumsum(lengths) - lengths
        first_of_row = np.searchsorted(rows.row, rows.row)
        cls_in_row = tokens_before - tokens_before[first_of_row]
        batch_row = rows.index[rows.row]
        cls = batch_row * self.phase.sequence_length + cls_in_row
        first_text = cls + 1 if self.special_tokens else cls
        first_sep = first_text + sizes[0]
        last_sep = cls + lengths - 1  # the same one if there is no B
        every_token = ranges(cls, lengths)
        # Segments in the order A, B, A, B, ...
        segment_sizes = sizes.T.ravel()
        text = ranges(np.stack([first_text, first_sep + 1]).T.ravel(), segment_sizes)
        places = ranges(rows.starts.T.ravel(), segment_sizes)
        ids = group.tokens[places].astype(np.int32)
        starts = None if group.word_starts is None else group.word_starts[places]
        labels = None if group.labels is None else group.labels[places].astype(np.int32)

        if self.pad_id:
            batch["input_ids"][rows.index] = self.pad_id
        inputs = batch["input_ids"].reshape(-1)
        if self.special_tokens:
            inputs[cls] = self.cls_id
            inputs[first_sep] = inputs[last_sep] = self.sep_id
            segment_b = ranges(first_sep + 1, last_sep - first_sep)
            batch["token_type_ids"].reshape(-1)[segment_b] = 1
        inputs[text] = ids
        batch["positions"].reshape(-1)[every_token] = every_token - np.repeat(cls, lengths)
        batch["segment_ids"].reshape(-1)[every_token] = np.repeat(rows.slot + 1, lengths)
        batch["cls_positions"][batch_row, rows.slot] = cls_in_row
        batch["sop_labels"][batch_row, rows.slot] = rows.labels
        batch["sop_weights"][batch_row, rows.slot] = rows.weights
        if labels is not None:
            every = self.phase.objective.word_prediction == "all"
            for name in batch.keys() & {"labels", "word_labels" if every else "labels"}:
                batch[name].reshape(-1)[text] = labels
        if "word_starts" in batch:
            batch["word_starts"].reshape(-1)[text] = self._starts(ids, starts)
        return Tokens(ids, starts, labels), text

    def _mask(self, batch: arrays.Batch, rows: _Rows, text: Tokens, positions: np.ndarray) -> None:
        """Masks the text of the rows, given as `_write` returns it."""
        objective, ids = self.phase.objective, text.ids
        word_sizes, words = masking.word_sizes_of(
            self._unit_starts(text, rows.sizes), rows.sizes.sum(axis=0)
        )
        ngrams = masking.choose_ngrams(
            word_sizes,
            words,
            self._budgets(rows, slots=batch["mlm_positions"].shape[1]),
            rows.draws(self._key(_CHOOSE_NGRAMS, rows.step)),
            max_ngram=objective.max_ngram if objective.mask_unit in ("ngram", "span") else 1,
            favor_shorter=objective.favor_shorter_ngram,
        )
        chosen = masking.masked_tokens(ngrams, word_sizes, ids != self.separator_id)
        masked, labels = positions[chosen], ids[chosen]
        batch_row, column = np.divmod(masked, self.phase.sequence_length)
        row = np.searchsorted(rows.index, batch_row)
        slot = count_up(np.bincount(row, minlength=len(rows.index)))
        batch["mlm_positions"][batch_row, slot] = column
        batch["mlm_labels"][batch_row, slot] = labels
        batch["mlm_weights"][batch_row, slot] = 1.0
        if text.labels is not None and objective.word_prediction == "masked":
            batch["word_labels"][batch_row, slot] = text.labels[chosen]
        by_row = counter_rng.bits(self._key(_REPLACE, rows.step), rows.number[row])
        coins = draws = counter_rng.bits(by_row, column)
        if self.separator_id >= 0:  # All symbols of a word are treated alike.
            first = np.repeat(np.cumsum(word_sizes) - word_sizes, word_sizes)[chosen]
            coins = counter_rng.bits(by_row, positions[first] % self.phase.sequence_length)
        replaced = masking.replace(labels, draws, self.mask_id, self.vocab_size, coins)
        batch["input_ids"].reshape(-1)[masked] = replaced

    def _budgets(self, rows: _Rows, slots: int) -> np.ndarray:
        """Number of tokens to mask in each sequence, int64 [N]."""
        objective = self.phase.objective
        rates = np.full(len(rows.index), objective.mask_rate)
        if objective.uniform_mask_rate:
            draws = counter_rng.bits(self._key(_MASK_RATE, rows.step), rows.number)
            rates *= 1.0 - counter_rng.uniform(draws)
        return masking.budgets(rows.lengths, rows.row, rates[rows.row], slots)

    def _unit_starts(self, text: Tokens, sizes: np.ndarray) -> np.ndarray:
        """bool [tokens]: which tokens start a unit of masking; each segment starts one."""
        count = len(text.ids)
        if self.phase.objective.mask_unit not in ("ngram", "word"):
            return np.ones(count, bool)
        starts = self._starts(text.ids, text.word_starts)
        starts[0] = True
        ends = np.cumsum(sizes.T.ravel())
        starts[ends[ends < count]] = True
        return starts

    def _starts(self, ids: np.ndarray, word_starts: np.ndarray | None) -> np.ndarray:
        """bool [tokens]: where words begin, by the vocabulary if the corpus does not tell."""
        return self.starts_word[ids] if word_starts is None else word_starts
