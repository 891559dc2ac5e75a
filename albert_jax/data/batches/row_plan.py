"""Choice of the text of each row: sequences of two segments, cut as the original cuts them.

A plan is a pure function of lengths and a key, in plain numpy. It follows
create_pretraining_data.py of google-research/albert. Sentences of a document accumulate until they
reach a target length, which is the row length minus three special tokens, or with a small
probability a shorter length for all sequences of a document. This chunk is split into the segments
A and B between two sentences, and tokens are dropped from the front or back of the longer segment
until the sequence fits. In "nsp" half of the sequences take B from another document, and the
sentences that are thereby left over start the next chunk. Two differences are deliberate:

- A chunk of a single sentence has no order to predict. The original fills it with text of
  another document and labels it "swapped". Here (except in "nsp") it stays alone: B is empty and
  the weight of its order is 0. Its masked tokens are trained on like all others.
- A sentence longer than a row is cut into parts of a quarter of a row, so that hardly any text is
  lost; the original discards what does not fit.

For vocabularies without [CLS] and [SEP] a sequence has one segment and no special tokens.

Shapes: D documents, U units (a unit is a sentence or a part of a long one), N sequences.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data import counter_rng
from albert_jax.errors import ConfigError

# A key that ends with one of these numbers draws for one purpose only.
_SHORT, _TARGET, _FOREIGN, _SPLIT, _DOCUMENT, _SENTENCE, _TRUNCATE, _PACK = range(8)


class PlanSettings(NamedTuple):
    """The fields of a phase that decide the plan of a text."""

    sequence_length: int
    short_seq_prob: float
    sentence_order: Literal["sop", "nsp", "none"]
    packing: bool
    special_tokens: bool = True

    def __repr__(self) -> str:
        """The text that the hashes of row orders include, so it must never change."""
        bare = "" if self.special_tokens else ", bare=True"
        if self.special_tokens and self.sentence_order == "none":
            bare = ", pairs=False"
        return (
            f"PlanSettings(sequence_length={self.sequence_length!r}, "
            f"short_pair_prob={self.short_seq_prob!r}, sentence_order={self.sentence_order!r}, "
            f"packing={self.packing!r}{bare})"
        )


def settings_of(phase: PhaseConfig, *, special_tokens: bool) -> PlanSettings:
    """The settings of a phase, for a vocabulary with or without the `special_tokens`.

    Raises ConfigError for an order of sentences that such a vocabulary cannot predict.
    """
    order = phase.objective.sentence_order
    if not special_tokens and order != "none":
        raise ConfigError(
            f"objective.sentence_order is {order}, but the vocabulary has no [CLS] for it: set it "
            "to none"
        )
    return PlanSettings(
        phase.sequence_length, phase.short_seq_prob, order, phase.packing, special_tokens
    )


class RowPlan(NamedTuple):
    """Rows as ranges of tokens, whose offsets count from the first token of the planned text."""

    first: np.ndarray  # int64 [rows + 1]: row r holds the sequences first[r] to first[r + 1] - 1
    a_start: np.ndarray  # int64 [N]: first token of A
    a_size: np.ndarray  # int64 [N]: tokens of A, at least 1
    b_start: np.ndarray  # int64 [N]: first token of B
    b_size: np.ndarray  # int64 [N]: tokens of B, 0 if there is none
    label: np.ndarray
    """int64 [N]: 1 where B is from another document ("nsp")."""
    weight: np.ndarray  # float32 [N]: 0 where there is no order to predict

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.first) - 1

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each sequence of a plan with special tokens, int64 [N]."""
        return sequence_lengths(self.a_size, self.b_size)


def inside(starts: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Returns True for starts in ranges with the ascending bounds start, end, start, end, ..."""
    return np.searchsorted(bounds, starts, side="right") % 2 == 1


def plan_rows(
    sentences_per_document: np.ndarray,
    tokens_per_sentence: np.ndarray,
    settings: PlanSettings,
    key: int,
) -> RowPlan:
    """Plans rows over documents from int64 [D] and int64 [sentences]; ``key`` decides all draws.

    In a packed plan short target lengths are drawn for each sequence instead of each document,
    because a packed row needs sequences of many lengths.
    """
    has_pairs = settings.special_tokens and settings.sentence_order != "none"
    specials = 2 + has_pairs if settings.special_tokens else 0  # [CLS] A [SEP] B [SEP]
    limit = settings.sequence_length - specials
    # Four parts of a long sentence just reach the longest target. Running text has no pairs of
    # sentences to keep, so smaller parts let it fill its rows and have its random lengths.
    part = -(-limit // (4 if settings.special_tokens else 8))
    longest = limit if settings.special_tokens else part
    sizes, counts = _cut_long(sentences_per_document, tokens_per_sentence, longest, part)
    text = _Text(sizes, counts, settings, key)
    target = text.targets(limit)
    ends = np.searchsorted(text.offsets, text.offsets[:-1] + target)
    ends = np.minimum(ends, text.document_ends[text.document])
    next_start = ends
    if settings.sentence_order == "nsp" and len(counts) > 1:
        every = np.arange(len(sizes))
        next_start = np.where(_foreign(every, ends, settings, key), text.splits(every, ends), ends)
    start = _chain(next_start)
    end = ends[start]
    split = text.splits(start, end) if has_pairs else end
    a_start, b_start = text.offsets[start], text.offsets[split]
    a_size, b_size = b_start - a_start, text.offsets[end] - b_start
    foreign = _foreign(start, end, settings, key) & (len(counts) > 1)
    if foreign.any():
        wanted = target[start[foreign]] - a_size[foreign]
        b_start[foreign], b_size[foreign] = text.other_documents(start[foreign], wanted)
    draws = text.draws(_TRUNCATE, start)
    a_start, a_size, b_start, b_size = _truncate(a_start, a_size, b_start, b_size, limit, draws)
    weight = ((b_size > 0) & (settings.sentence_order != "none")).astype(np.float32)
    first = np.arange(len(start) + 1)
    plan = RowPlan(first, a_start, a_size, b_start, b_size, foreign.astype(np.int64), weight)
    return _packed(plan, settings, key) if settings.packing else plan


def sequence_lengths(
    a_size: np.ndarray, b_size: np.ndarray, *, special_tokens: bool = True
) -> np.ndarray:
    """Tokens of each sequence with its special tokens, int64 [N]."""
    return a_size + b_size + (2 + (b_size > 0) if special_tokens else 0)


class _Text:
    """The planned text as units, in which chunks start and end, with its random draws."""

    def __init__(
        self, sizes: np.ndarray, counts: np.ndarray, settings: PlanSettings, key: int
    ) -> None:
        self.offsets = np.concatenate([[0], np.cumsum(sizes)])  # [U + 1]: tokens before each unit
        self.document_ends = np.cumsum(counts)  # [D]: unit after the last one of each document
        self.document = np.repeat(np.arange(len(counts)), counts)  # [U]: document of each unit
        self.settings, self.key = settings, key

    def draws(self, purpose: int, items: np.ndarray) -> np.ndarray:
        return counter_rng.bits(counter_rng.key(self.key, purpose), items)

    def targets(self, limit: int) -> np.ndarray:
        """Target length of a chunk that starts at each unit, int64 [U]."""
        packing = self.settings.packing
        items = np.arange(len(self.document if packing else self.document_ends))
        short = counter_rng.uniform(self.draws(_SHORT, items)) < self.settings.short_seq_prob
        short_target = 2 + counter_rng.below(self.draws(_TARGET, items), limit - 1)
        target = np.where(short, short_target, limit)
        return target if packing else target[self.document]

    def splits(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """First unit of B: uniform over the boundaries in a chunk, or its end if it has none."""
        boundaries = np.maximum(end - start - 1, 1)
        return start + 1 + counter_rng.below(self.draws(_SPLIT, start), boundaries)

    def other_documents(
        self, start: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ranges (start, size) of other documents, each from a random sentence on."""
        ends = self.document_ends
        document = counter_rng.below(self.draws(_DOCUMENT, start), len(ends) - 1)
        document += document >= self.document[start]
        begin = np.where(document > 0, ends[document - 1], 0)
        unit = begin + counter_rng.below(self.draws(_SENTENCE, start), ends[document] - begin)
        end = np.searchsorted(self.offsets, self.offsets[unit] + np.maximum(wanted, 1))
        end = np.minimum(end, ends[document])
        return self.offsets[unit], self.offsets[end] - self.offsets[unit]


def _foreign(start: np.ndarray, end: np.ndarray, settings: PlanSettings, key: int) -> np.ndarray:
    """Returns True for each chunk that takes B from another document, bool [chunks].

    In "nsp" these are a random half of the chunks, and all chunks of a single unit.
    """
    if settings.sentence_order != "nsp":
        return np.zeros(len(start), bool)
    coin = counter_rng.bits(counter_rng.key(key, _FOREIGN), start) >> np.uint64(63)
    return (coin == 1) | (end - start == 1)


def _cut_long(
    sentences_per_document: np.ndarray, tokens_per_sentence: np.ndarray, longest: int, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each unit, and units of each document: longer sentences are units of `part`."""
    if not len(tokens_per_sentence) or tokens_per_sentence.max() <= longest:
        return tokens_per_sentence, sentences_per_document
    parts = np.where(tokens_per_sentence > longest, -(-tokens_per_sentence // part), 1)
    last = np.cumsum(parts) - 1
    sizes = np.full(parts.sum(), part)
    sizes[last] = tokens_per_sentence - (parts - 1) * part
    units_before = np.concatenate([[0], np.cumsum(parts)])
    bounds = np.concatenate([[0], np.cumsum(sentences_per_document)])
    return sizes, np.diff(units_before[bounds])


def _chain(following: np.ndarray) -> np.ndarray:
    """Units at which chunks start: 0, following[0], following[following[0]] and so on."""
    # Array operations over all documents at once would be slower: they need as many rounds as the
    # longest document has chunks.
    next_start, size = following.tolist(), len(following)
    starts, unit = [], 0
    while unit < size:
        starts.append(unit)
        unit = next_start[unit]
    return np.array(starts, np.int64)


def _truncate(
    a_start: np.ndarray,
    a_size: np.ndarray,
    b_start: np.ndarray,
    b_size: np.ndarray,
    limit: int,
    draws: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drops single tokens from a random end of the longer segment until a sequence fits.

    This is the sequential rule in closed form: first the longer segment shrinks to the length of
    the shorter one, then both lose tokens in turn, B first.
    """
    excess = np.maximum(a_size + b_size - limit, 0)
    gap = np.minimum(np.abs(a_size - b_size), excess)
    rest = excess - gap
    from_a = np.where(a_size > b_size, gap, 0) + rest // 2
    from_b = np.where(a_size > b_size, 0, gap) + (rest + 1) // 2
    return (
        a_start + _coin_flips(from_a, draws, 0), a_size - from_a,
        b_start + _coin_flips(from_b, draws, 1), b_size - from_b,
    )  # fmt: skip


def _coin_flips(tosses: np.ndarray, draws: np.ndarray, side: int) -> np.ndarray:
    """Number of heads in some tosses of a fair coin: the set bits of as many random bits."""
    heads = np.zeros(len(tosses), np.int64)
    remaining = np.flatnonzero(tosses)
    word = 0
    while len(remaining):
        bits = np.minimum(tosses[remaining] - 64 * word, 64).astype(np.uint64)
        coins = counter_rng.bits(draws[remaining], 2 * word + side)
        heads[remaining] += np.bitwise_count(coins >> (np.uint64(64) - bits))
        word += 1
        remaining = remaining[tosses[remaining] > 64 * word]
    return heads


def _packed(plan: RowPlan, settings: PlanSettings, key: int) -> RowPlan:
    """The same sequences, several to a row."""
    length = settings.sequence_length
    sizes = sequence_lengths(plan.a_size, plan.b_size, special_tokens=settings.special_tokens)
    row = pack(sizes, length, sequences_per_row(length), counter_rng.key(key, _PACK))
    rows = int(row.max()) + 1 if len(row) else 0
    order = np.argsort(row.astype(np.min_scalar_type(rows)), kind="stable")
    first = np.searchsorted(row[order], np.arange(rows + 1))
    return RowPlan(first, *(column[order] for column in plan[1:]))


def sequences_per_row(sequence_length: int) -> int:
    """K, the most sequences in a packed row (64 at 512 tokens), a shape of the compiled step.

    Heads at K positions cost a thousandth of the layers, and a smaller K would leave rows of very
    short sequences half empty.
    """
    return max(1, sequence_length // 8)


def pack(lengths: np.ndarray, capacity: int, max_items: int, key: int) -> np.ndarray:
    """The row of each item, int64 [items], from the lengths [items] of 1 to ``capacity`` tokens.

    ``key`` decides which items of one length come into which row. The method is first fit with
    the longest items first: a row repeatedly takes the longest remaining item that fits. The set
    of remaining lengths is an integer whose bits are the lengths, so the next item is found in one
    operation. A row repeats until one of its lengths runs out, so rows are made many at a time.
    """
    remaining = np.bincount(lengths, minlength=capacity + 1).tolist()
    available = sum(1 << length for length, count in enumerate(remaining) if count)
    small = np.min_scalar_type(capacity)  # A stable sort of small integers is a fast radix sort.
    placed_lengths, placed_rows, row = [np.zeros(0, small)], [np.zeros(0, np.int64)], 0
    while available:
        space, free_slots, items_of_row = capacity, max_items, []
        lengths_left = available
        while free_slots:
            length = (lengths_left & ((2 << space) - 1)).bit_length() - 1
            if length < 1:
                break
            number = min(space // length, remaining[length], free_slots)
            items_of_row.append((length, number))
            space -= number * length
            free_slots -= number
            lengths_left &= ~(1 << length)
        rows = min(remaining[length] // number for length, number in items_of_row)
        for length, number in items_of_row:
            placed_lengths.append(np.full(rows * number, length, small))
            placed_rows.append(np.repeat(np.arange(row, row + rows), number))
            remaining[length] -= rows * number
            if not remaining[length]:
                available ^= 1 << length
        row += rows
    by_length = np.argsort(np.concatenate(placed_lengths), kind="stable")
    items = counter_rng.permutation(key, len(lengths))
    items = items[np.argsort(lengths[items].astype(small), kind="stable")]
    row_of = np.empty(len(lengths), np.int64)
    row_of[items] = np.concatenate(placed_rows)[by_length]
    return row_of


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, one range after the other, int32 (half the memory)."""
    ends = np.cumsum(sizes)
    numbers = np.repeat((starts - ends + sizes).astype(np.int32), sizes)
    numbers += np.arange(len(numbers), dtype=np.int32)
    return numbers


def count_up(sizes: np.ndarray) -> np.ndarray:
    """0 to size - 1 for each size, one after the other."""
    return ranges(np.zeros(len(sizes), np.int64), sizes)
