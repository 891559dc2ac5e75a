"""Statistics of many batches, as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from albert_jax.data.batches.batch import Batch
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import StorageError

Statistics = dict[str, np.ndarray]
"""Arrays by name.

- ``row_tokens`` and ``row_slots`` [rows]: tokens of each row, and positions including padding;
- ``sequence_tokens`` [sequences]: tokens of each sequence;
- ``mask_rates`` [rows]: share of the tokens of each row that is masked;
- ``masked_runs`` [runs]: words in each run of neighboring masked words (adjacent n-grams form one);
- ``replaced`` [3]: masked positions that hold [MASK], their own token, and another token;
- ``unknown`` [2]: unknown tokens, and all tokens;
- ``order`` [3]: sequences with order label 0, with label 1, and without weight.
"""


def measure(batches: Iterable[Batch], vocabulary: Vocabulary) -> Statistics:
    """The statistics of some batches; filler rows do not count."""
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, values in _statistics(batch, vocabulary).items():
            parts.setdefault(name, []).append(values)
    sums = ("replaced", "unknown", "order")
    return {
        name: np.sum(values, axis=0) if name in sums else np.concatenate(values)
        for name, values in parts.items()
    }


def table(statistics: Statistics) -> str:
    """The statistics as lines of text."""
    tokens, slots = statistics["row_tokens"], statistics["row_slots"]
    replaced = statistics["replaced"] / max(statistics["replaced"].sum(), 1)
    original, swapped, unweighted = statistics["order"].tolist()
    weighted = original + swapped
    runs = statistics["masked_runs"]
    shares = np.bincount(runs)[1:7] / max(len(runs), 1)
    run_lengths = ", ".join(f"{n}: {share:.1%}" for n, share in enumerate(shares, start=1))
    unknown, all_tokens = statistics["unknown"].tolist()
    sequences = statistics["sequence_tokens"]
    lines = [
        ("rows", f"{len(tokens):,}"),
        ("tokens", f"{int(tokens.sum()):,}"),
        ("padding", f"{1 - tokens.sum() / max(slots.sum(), 1):.2%} of all positions"),
        ("tokens per row", _quantiles(tokens)),
        ("tokens per pair", _quantiles(sequences)),
        ("pairs per row", f"{len(sequences) / max(len(tokens), 1):.2f}"),
        ("mask rate", f"{statistics['mask_rates'].mean() if len(tokens) else 0:.2%} of a row"),
        ("words per masked run", run_lengths or "none"),
        ("masked tokens become", f"[MASK] {replaced[0]:.1%}, themselves {replaced[1]:.1%}, "
                                 f"another token {replaced[2]:.1%}"),
        ("unknown tokens", f"{unknown / max(all_tokens, 1):.3%}"),
        ("sentence order", f"{swapped / max(weighted, 1):.1%} labelled 1; asked of "
                           f"{weighted / max(weighted + unweighted, 1):.1%} of the pairs"),
    ]  # fmt: skip
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def draw(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Draws the statistics to a PNG. Raises StorageError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    histograms = {
        "row_tokens": "tokens per row",
        "sequence_tokens": "tokens per pair",
        "mask_rates": "masked share per row",
    }
    for axis, (name, title) in zip(axes, histograms.items(), strict=False):
        axis.hist(statistics[name], bins=40, color="#4477aa")
        axis.set(title=title, ylabel="count")
    run_lengths = np.bincount(statistics["masked_runs"], minlength=7)[1:7]
    bars = (
        (run_lengths, "words per masked run", [str(n) for n in range(1, 7)]),
        (statistics["replaced"], "masked tokens become", ["[MASK]", "itself", "other"]),
        (statistics["order"], "sentence order", ["label 0", "label 1", "not asked"]),
    )
    for axis, (counts, title, names) in zip(axes[3:], bars, strict=True):
        axis.bar(names, counts / max(counts.sum(), 1), color="#4477aa")
        axis.set(title=title, ylabel="share")
    padding = 1 - statistics["row_tokens"].sum() / max(statistics["row_slots"].sum(), 1)
    unknown, tokens = statistics["unknown"].tolist()
    figure.suptitle(f"padding {padding:.2%}, unknown tokens {unknown / max(tokens, 1):.3%}")
    target = Path(path)
    temporary = target.with_name(target.name + ".unfinished")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {target}: {error}: name a writable file") from error


def _statistics(batch: Batch, vocabulary: Vocabulary) -> Statistics:
    segments = batch["segment_ids"]
    real = segments > 0
    rows = np.flatnonzero(real.any(axis=1))
    tokens = real.sum(axis=1)
    max_sequences = int(segments.max(initial=0))
    sequence_tokens = np.stack(
        [(segments == number).sum(axis=1) for number in range(1, max_sequences + 1)] or [tokens]
    )
    used = batch["mlm_weights"] > 0
    line, _ = np.nonzero(used)
    position, label = batch["mlm_positions"][used], batch["mlm_labels"][used]
    seen = batch["input_ids"][line, position]
    text = batch["input_ids"].copy()
    text[line, position] = label
    masked = np.zeros(text.shape, bool)
    masked[line, position] = True
    kept = int((seen == label).sum())
    hidden = int(((seen == vocabulary.mask_id) & (seen != label)).sum())
    in_use = np.arange(batch["sop_weights"].shape[1]) < max_sequences
    weighted = (batch["sop_weights"] > 0) & in_use
    swapped = int((batch["sop_labels"][weighted] == 1).sum())
    sequences = int((sequence_tokens > 0).sum())
    return {
        "row_tokens": tokens[rows],
        "row_slots": np.full(len(rows), segments.shape[1]),
        "sequence_tokens": sequence_tokens[sequence_tokens > 0],
        "mask_rates": used.sum(axis=1)[rows] / tokens[rows],
        "masked_runs": _masked_runs(masked, vocabulary.starts_word[text]),
        "replaced": np.array([hidden, kept, len(seen) - kept - hidden]),
        "unknown": np.array([int((text[real] == vocabulary.unk_id).sum()), int(real.sum())]),
        "order": np.array(
            [int(weighted.sum()) - swapped, swapped, sequences - int(weighted.sum())]
        ),
    }


def _masked_runs(masked: np.ndarray, starts_word: np.ndarray) -> np.ndarray:
    """Words in each run of masked positions, from two bool [B, S]."""
    starts_run = masked & ~np.pad(masked[:, :-1], ((0, 0), (1, 0)))
    starts = masked & (starts_word | starts_run)
    run_of_word = np.cumsum(starts_run.ravel())[starts.ravel()]
    return np.bincount(run_of_word, minlength=1)[1:]


def _quantiles(values: np.ndarray) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"mean {values.mean():.1f} (5% {low:.0f}, median {middle:.0f}, 95% {high:.0f})"
