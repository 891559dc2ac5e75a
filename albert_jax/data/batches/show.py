"""Batches as text: single rows, and figures of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from albert_jax.data.batches.batch import NO_LABEL, Batch, unmasked_ids
from albert_jax.data.vocabularies.vocabulary import Vocabulary

_REPLACEMENTS = ("replaced by [MASK]", "kept", "replaced by a token")

LEGEND = (
    "Legend: [a|b] a is in the row, b is to be predicted; [=b] b is to be predicted and stands "
    "there as it is; \u2581 a word begins"
)


COLUMNS_LEGEND = {
    "word_starts": "| a word begins, as the data say",
    "labels": "labels: those of the words, or where they change",
}


def show(
    batch: Batch, vocabulary: Vocabulary, first_row: int = 0, labels: Sequence[str] = ()
) -> str:
    """Text of the rows of a batch, with a line for A and one for B of each sequence.

    A masked position reads ``[MASK|label]``, one that holds a random token ``[token|label]``, and
    one that was left as it is ``[=label]``. Rows are numbered from ``first_row`` on. The columns of
    a batch that has some (``BatchBuilder.batch``) are bars before words, and lines of ``labels``,
    which are the words of all labels. The last line is a legend.
    """
    lines = []
    for row in range(len(batch["segment_ids"])):
        size, *text = row_lines(batch, vocabulary, row, labels)
        lines += [f"row {first_row + row}: {size}", *text]
    legend = [LEGEND, *(text for name, text in COLUMNS_LEGEND.items() if name in batch)]
    return "\n".join([*lines, "; ".join(legend)])


def row_lines(
    batch: Batch, vocabulary: Vocabulary, row: int, labels: Sequence[str] = ()
) -> list[str]:
    """The size of a row and its text, as lines of `show` without the number of the row."""
    segments, ids = batch["segment_ids"][row], batch["input_ids"][row].tolist()
    tokens = [vocabulary.id_to_token(id) for id in ids]
    used = batch["mlm_weights"][row] > 0
    masked = batch["mlm_labels"][row][used].tolist()
    for position, label in zip(batch["mlm_positions"][row][used], masked, strict=True):
        seen = "MASK" if ids[position] == vocabulary.mask_id else tokens[position]
        hidden = vocabulary.id_to_token(label)
        tokens[position] = f"[={hidden}]" if ids[position] == label else f"[{seen}|{hidden}]"
    if "word_starts" in batch:
        starts = batch["word_starts"][row].tolist()
        tokens = [("", "|")[s] + token for s, token in zip(starts, tokens, strict=True)]
    sequences = int(segments.max())
    lines = [
        f"{np.count_nonzero(segments)} of {len(segments)} tokens, {len(masked)} masked, "
        f"{sequences} sequence{'' if sequences == 1 else 's'}"
    ]
    for sequence in range(sequences):
        order = "not predicted"
        if batch["sop_weights"][row, sequence]:
            swapped = batch["sop_labels"][row, sequence]
            order = "swapped or from another document" if swapped else "original"
        within = segments == sequence + 1
        if not within.any():
            lines.append(f"  sequence {sequence + 1}: left out, because its record is damaged")
            continue
        lines.append(f"  sequence {sequence + 1}: {int(within.sum())} tokens, order {order}")
        lines += segment_lines(tokens, within, batch["token_type_ids"][row])
        if "labels" in batch:
            lines.append(f"    labels: {' '.join(_labels(batch, row, within, labels))}")
    return lines


def _labels(batch: Batch, row: int, within: np.ndarray, words: Sequence[str]) -> list[str]:
    """The label of each word of a sequence, or without word starts of each run of equal labels."""
    numbers = batch["labels"][row]
    new = numbers != np.roll(numbers, 1)
    if "word_starts" in batch:
        new |= batch["word_starts"][row]
    chosen = numbers[within & new & (numbers != NO_LABEL)]
    return [words[int(number)] for number in chosen]


def segment_lines(tokens: Sequence[str], within: np.ndarray, types: np.ndarray) -> list[str]:
    """A line with the tokens of each segment of a sequence: those `within` of type 0, and 1."""
    chosen = [np.flatnonzero(within & (types == segment)) for segment in range(2)]
    return [
        f"    {name} {' '.join(tokens[i] for i in places.tolist())}"
        for name, places in zip("AB", chosen, strict=True)
        if len(places)
    ]


def statistics(batches: Iterable[Batch], vocabulary: Vocabulary) -> dict[str, str]:
    """Figures of some batches by name; filler rows do not count."""
    sums: Counter[str] = Counter()
    for batch in batches:
        sums.update(_counts(batch, vocabulary))

    def ratio(part: str, whole: str) -> float:
        return sums[part] / max(sums[whole], 1)

    return {
        "rows": f"{sums['rows']:,}",
        "tokens": f"{sums['tokens']:,}",
        "padding": f"{1 - ratio('tokens', 'positions'):.2%} of all positions",
        "tokens per row": f"{ratio('tokens', 'rows'):.1f}",
        "tokens per sequence": f"{ratio('tokens', 'sequences'):.1f}",
        "mask rate": f"{ratio('masked', 'tokens'):.2%} of the tokens",
        "words per masked run": f"{ratio('masked words', 'masked runs'):.2f}",
        "masked tokens": ", ".join(f"{ratio(how, 'masked'):.1%} {how}" for how in _REPLACEMENTS),
        "unknown tokens": f"{ratio('unknown', 'tokens'):.3%}",
        "sentence order": f"predicted for {ratio('weighted', 'sequences'):.1%} of the sequences: "
        f"{ratio('original', 'weighted'):.1%} original, {ratio('swapped', 'weighted'):.1%} swapped",
    }


def distributions(
    batches: Iterable[Batch], vocabulary: Vocabulary
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Values that vary among the rows of some batches, and shares that add up to 1, by name."""
    parts: dict[str, list[np.ndarray]] = {}
    sums: Counter[str] = Counter()
    for batch in batches:
        sums.update(_counts(batch, vocabulary))
        segments = batch["segment_ids"]
        tokens = np.count_nonzero(segments, axis=1)
        rows = tokens > 0
        masked = np.count_nonzero(batch["mlm_weights"] > 0, axis=1)[rows] / tokens[rows]
        sequences = np.arange(1, segments.max(initial=0) + 1)
        per_sequence = np.count_nonzero(segments[:, None] == sequences[:, None], axis=2)
        values = {
            "tokens per row": tokens[rows],
            "tokens per sequence": per_sequence[per_sequence > 0],
            "masked share of a row": masked,
        }
        for name, array in values.items():
            parts.setdefault(name, []).append(array)
    masks, total = max(sums["masked"], 1), max(sums["sequences"], 1)
    order = {"original": sums["original"], "swapped": sums["swapped"]}
    order["not predicted"] = sums["sequences"] - sums["weighted"]
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}, {
        "masked tokens": {how: sums[how] / masks for how in _REPLACEMENTS},
        "sentence order": {name: count / total for name, count in order.items()},
    }


def _counts(batch: Batch, vocabulary: Vocabulary) -> dict[str, int]:
    segments, text = batch["segment_ids"], unmasked_ids(batch)
    real = segments > 0
    used, weighted = batch["mlm_weights"] > 0, batch["sop_weights"] > 0
    positions = np.nonzero(used)[0], batch["mlm_positions"][used]
    inputs, labels = batch["input_ids"][positions], batch["mlm_labels"][used]
    masked = np.zeros(text.shape, bool)
    masked[positions] = True
    starts_run = masked & ~np.pad(masked[:, :-1], ((0, 0), (1, 0)))
    starts = batch.get("word_starts", vocabulary.starts_word[text])
    kept = inputs == labels
    hidden = (inputs == vocabulary.mask_id) & ~kept
    marks = {
        "rows": real.any(axis=1),
        "tokens": real,
        "masked": used,
        "masked runs": starts_run,
        "masked words": starts_run | masked & starts,
        "replaced by [MASK]": hidden,
        "kept": kept,
        "replaced by a token": ~hidden & ~kept,
        "unknown": (text == vocabulary.unk_id) & real,
        "weighted": weighted,
        "swapped": weighted & (batch["sop_labels"] == 1),
        "original": weighted & (batch["sop_labels"] == 0),
    }
    counts = {name: int(np.count_nonzero(mark)) for name, mark in marks.items()}
    sequences = int(segments.max(axis=1).sum())
    return {**counts, "sequences": sequences, "positions": counts["rows"] * segments.shape[1]}
