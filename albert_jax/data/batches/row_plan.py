"""Which text stands in which row: segment pairs as the original cuts them.

A plan is a pure function of lengths and a key, in plain numpy. It follows
create_pretraining_data.py of google-research/albert: sentences of a document accumulate until
they reach a target length (row length minus three special tokens; with a small probability a
shorter one for all pairs of a document), the chunk is split into A and B between two sentences,
and tokens are dropped from the front or back of the longer side until the pair fits. In "nsp"
half of the pairs get B from another document, and the sentences thereby left over start the next
chunk. Two differences are deliberate:

- A chunk of a single sentence has no order to predict. The original fills it with text of
  another document and labels it "swapped"; here (but for "nsp") it stays alone, B is empty and
  its order weight is 0. Its masked tokens are trained on as all others.
- A sentence longer than a row is cut into parts of a quarter of a row, so that hardly any text is
  lost; the original throws away what does not fit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from albert_jax.data import counter_rng as random
from albert_jax.data.batches.packing import pack, pairs_per_row

SPECIALS = 3
"""[CLS] A [SEP] B [SEP]"""


class PlanSettings(NamedTuple):
    """What a plan depends on beside lengths and key."""

    sequence_length: int
    short_seq_prob: float
    sentence_order: Literal["sop", "nsp", "none"]
    packing: bool

    def __repr__(self) -> str:
        """The text that the hashes of row orders include, so it must never change."""
        return (
            f"PlanSettings(sequence_length={self.sequence_length!r}, "
            f"short_pair_prob={self.short_seq_prob!r}, sentence_order={self.sentence_order!r}, "
            f"packing={self.packing!r})"
        )


class Plan(NamedTuple):
    """Rows as pairs of token ranges; offsets count from the first token of what was planned."""

    first: np.ndarray
    """int64 [rows + 1]: row r holds pairs first[r] to first[r + 1]."""
    a_start: np.ndarray
    """int64 [pairs]: first token of A."""
    a_size: np.ndarray
    """int64 [pairs]: tokens of A, at least 1."""
    b_start: np.ndarray
    """int64 [pairs]: first token of B."""
    b_size: np.ndarray
    """int64 [pairs]: tokens of B, 0 if there is none."""
    label: np.ndarray
    """int64 [pairs]: 1 where B is from another document ("nsp")."""
    weight: np.ndarray
    """float32 [pairs]: 0 where there is no order to predict."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.first) - 1

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each pair with its special tokens, int64 [pairs]."""
        return self.a_size + self.b_size + 2 + (self.b_size > 0)


def plan_rows(pieces: np.ndarray, sentences: np.ndarray, settings: PlanSettings, key: int) -> Plan:
    """Plans rows over some documents.

    ``pieces`` [documents]: sentences of each; ``sentences`` [sentences]: tokens of each. In a
    packed plan short target lengths are drawn per pair instead of per document, since a packed
    row needs companions of many lengths.
    """
    limit = settings.sequence_length - SPECIALS
    units, pieces = _cut_long(pieces, sentences, limit)
    offsets = np.concatenate([[0], np.cumsum(units)])
    piece_ends = np.cumsum(pieces)
    piece_of = np.repeat(np.arange(len(pieces)), pieces)
    target = _targets(piece_of, len(pieces), limit, settings, key)
    ends = np.searchsorted(offsets, offsets[:-1] + target)
    ends = np.minimum(ends, piece_ends[piece_of])
    if settings.sentence_order == "nsp":
        number = np.arange(len(units))
        splits = _splits(number, ends, key)
        start = _chain(np.where(_foreign(number, ends, settings, key), splits, ends))
    else:
        start = _chain(ends)
    end = ends[start]
    split = _splits(start, end, key)
    foreign = _foreign(start, end, settings, key) & (len(pieces) > 1)
    b_start, b_size = offsets[split], offsets[end] - offsets[split]
    a_size = offsets[split] - offsets[start]
    if foreign.any():
        chosen = np.flatnonzero(foreign)
        b_start[chosen], b_size[chosen] = _other_documents(
            start[chosen], target[start[chosen]] - a_size[chosen], offsets, piece_ends, piece_of,
            key,
        )  # fmt: skip
    a_start, a_size, b_start, b_size = _truncate(
        offsets[start], a_size, b_start, b_size, limit, random.bits(random.key(key, 6), start)
    )
    weight = ((b_size > 0) & (settings.sentence_order != "none")).astype(np.float32)
    plan = Plan(
        np.arange(len(start) + 1), a_start, a_size, b_start, b_size, foreign.astype(np.int64),
        weight,
    )  # fmt: skip
    return _packed(plan, settings.sequence_length, key) if settings.packing else plan


def _cut_long(
    pieces: np.ndarray, sentences: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each unit, and units of each piece; a unit is a sentence or part of a long one."""
    if not len(sentences) or sentences.max() <= limit:
        return sentences, pieces
    part = -(-limit // 4)  # Four parts just reach the longest target.
    parts = np.where(sentences > limit, -(-sentences // part), 1)
    last = np.cumsum(parts) - 1
    units = np.full(parts.sum(), part)
    units[last] = sentences - (parts - 1) * part
    added = np.concatenate([[0], np.cumsum(parts)])
    bounds = np.concatenate([[0], np.cumsum(pieces)])
    return units, np.diff(added[bounds])


def _targets(
    piece_of: np.ndarray, pieces: int, limit: int, settings: PlanSettings, key: int
) -> np.ndarray:
    """Target length of a chunk that starts at each unit."""
    drawn = np.arange(len(piece_of) if settings.packing else pieces)
    short = random.uniform(random.bits(random.key(key, 0), drawn)) < settings.short_seq_prob
    lengths = 2 + random.below(random.bits(random.key(key, 1), drawn), limit - 1)
    target = np.where(short, lengths, limit)
    return target if settings.packing else target[piece_of]


def _chain(following: np.ndarray) -> np.ndarray:
    """Units at which chunks start: 0, following[0], following[following[0]] and so on.

    The end of a document is the start of the next, so one walk visits all documents. A loop over
    chunks costs 60 ns each; array operations over all documents at once need as many rounds as
    the longest document has chunks, which is slower.
    """
    steps, size = following.tolist(), len(following)
    found = []
    unit = 0
    while unit < size:
        found.append(unit)
        unit = steps[unit]
    return np.array(found, np.int64)


def _splits(start: np.ndarray, end: np.ndarray, key: int) -> np.ndarray:
    """First unit of B, uniform over the borders inside a chunk (its end, if it has none)."""
    drawn = random.below(random.bits(random.key(key, 3), start), np.maximum(end - start - 1, 1))
    return start + 1 + drawn


def _foreign(start: np.ndarray, end: np.ndarray, settings: PlanSettings, key: int) -> np.ndarray:
    """Which chunks take B from another document: in "nsp" every second one, and those of a
    single unit."""
    if settings.sentence_order != "nsp":
        return np.zeros(len(start), bool)
    coin = random.bits(random.key(key, 2), start) >> np.uint64(63)
    return (coin == 1) | (end - start == 1)


def _other_documents(
    start: np.ndarray,
    wanted: np.ndarray,
    offsets: np.ndarray,
    piece_ends: np.ndarray,
    piece_of: np.ndarray,
    key: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Token ranges (start, size) from other documents, at a random sentence, of at least the
    wanted length where that document is long enough."""
    piece = random.below(random.bits(random.key(key, 4), start), len(piece_ends) - 1)
    piece += piece >= piece_of[start]
    begin = np.where(piece > 0, piece_ends[piece - 1], 0)
    unit = begin + random.below(random.bits(random.key(key, 5), start), piece_ends[piece] - begin)
    last = np.searchsorted(offsets, offsets[unit] + np.maximum(wanted, 1))
    last = np.minimum(last, piece_ends[piece])
    return offsets[unit], offsets[last] - offsets[unit]


def _truncate(
    a_start: np.ndarray,
    a_size: np.ndarray,
    b_start: np.ndarray,
    b_size: np.ndarray,
    limit: int,
    draws: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Drops single tokens from the front or back (evenly at random) of the longer side.

    The sequential rule in closed form: first the longer side shrinks to the shorter, then both
    lose tokens in turn, B first.
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
    """Heads among some tosses of a fair coin: set bits of as many random bits."""
    heads = np.zeros(len(tosses), np.int64)
    chosen = np.flatnonzero(tosses)
    word = 0
    while len(chosen):
        left = np.minimum(tosses[chosen] - 64 * word, 64).astype(np.uint64)
        coins = random.bits(draws[chosen], 2 * word + side)
        heads[chosen] += np.bitwise_count(coins >> (np.uint64(64) - left))
        word += 1
        chosen = chosen[tosses[chosen] > 64 * word]
    return heads


def _packed(plan: Plan, sequence_length: int, key: int) -> Plan:
    """The same pairs, several to a row."""
    row = pack(plan.tokens, sequence_length, pairs_per_row(sequence_length), random.key(key, 7))
    rows = int(row.max()) + 1 if len(row) else 0
    order = np.argsort(row.astype(np.min_scalar_type(rows)), kind="stable")
    first = np.searchsorted(row[order], np.arange(rows + 1))
    return Plan(first, *(column[order] for column in plan[1:]))
