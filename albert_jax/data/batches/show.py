"""Looking at data: any batch as text, and figures of many batches as a table and a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from albert_jax.data.batches.rows import Batch
from albert_jax.data.vocabularies.vocabulary import Vocabulary
from albert_jax.errors import StorageError

_COLOURS = {"masked": "31;1", "random": "35;1", "kept": "33;1", "special": "2", "second": "36"}
_ORDER = {0: "original", 1: "swapped or from another document"}


def show(batch: Batch, vocabulary: Vocabulary, *, numbers: np.ndarray, colour: bool = False) -> str:
    """Text of the rows of a batch; ``numbers`` [rows] are printed as their names.

    A masked place reads ``[MASK|label]``; one that holds a random piece ``[piece|label]``; one
    that was left as it is ``[=label]``. Every pair of a packed row has a line for A and one for B.
    """
    lines = []
    for row, number in enumerate(np.asarray(numbers).tolist()):
        segments = batch["segment_ids"][row]
        used = batch["mlm_weights"][row] > 0
        labels = dict(
            zip(
                batch["mlm_positions"][row][used].tolist(), batch["mlm_labels"][row][used].tolist(),
                strict=True,
            )
        )  # fmt: skip
        real = int((segments > 0).sum())
        lines.append(
            f"row {number}: {real} of {len(segments)} tokens, {len(labels)} masked, "
            f"{int(segments.max())} pair(s)"
        )
        for pair in range(1, int(segments.max()) + 1):
            places = np.flatnonzero(segments == pair)
            weight = float(batch["sop_weights"][row, pair - 1])
            order = _ORDER[int(batch["sop_labels"][row, pair - 1])] if weight else "not asked"
            lines.append(f"  pair {pair}: {len(places)} tokens, order {order}")
            kinds = batch["token_type_ids"][row][places]
            for name, kind in (("A", 0), ("B", 1)):
                words = [
                    _word(batch, row, place, labels.get(place), vocabulary, kind, colour)
                    for place in places[kinds == kind].tolist()
                ]
                if words:
                    lines.append(f"    {name} " + " ".join(words))
    return "\n".join(lines)


def measure(batches: Iterable[Batch], vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Figures of some batches, as the distributions that ``table`` and ``draw`` show.

    Keys: ``row_tokens`` (real tokens of each row) and ``row_slots``; ``pair_tokens``;
    ``mask_rates`` (of each row); ``masked_runs`` (words in each run of neighbouring masked words,
    which n-grams side by side share); ``replaced`` (shares of [MASK], kept and random);
    ``unknown`` (share of unknown pieces); ``order`` (pairs labelled 0, labelled 1, not asked).
    """
    parts: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        for name, values in _figures(batch, vocabulary).items():
            parts.setdefault(name, []).append(values)
    found = {name: np.concatenate(values) for name, values in parts.items()}
    for name, columns in (("replaced", 3), ("unknown", 2), ("order", 3)):
        found[name] = found[name].reshape(-1, columns).sum(axis=0)
    return found


def table(figures: dict[str, np.ndarray]) -> str:
    """The figures of ``measure`` as lines of text."""
    tokens, slots = figures["row_tokens"], figures["row_slots"]
    replaced = figures["replaced"] / max(figures["replaced"].sum(), 1)
    zero, one, unasked = figures["order"].tolist()
    runs = figures["masked_runs"]
    lengths = ", ".join(
        f"{n}: {share:.1%}"
        for n, share in enumerate(np.bincount(runs)[1:7] / max(len(runs), 1), start=1)
    )
    unknown, all_tokens = figures["unknown"].tolist()
    rows = [
        ("rows", f"{len(tokens):,}"),
        ("tokens", f"{int(tokens.sum()):,}"),
        ("padding", f"{1 - tokens.sum() / max(slots.sum(), 1):.2%} of all places"),
        ("tokens per row", _quantiles(tokens)),
        ("tokens per pair", _quantiles(figures["pair_tokens"])),
        ("pairs per row", f"{len(figures['pair_tokens']) / max(len(tokens), 1):.2f}"),
        ("mask rate", f"{figures['mask_rates'].mean() if len(tokens) else 0:.2%} of a row"),
        ("words per masked run", lengths or "none"),
        ("masked places hold", f"[MASK] {replaced[0]:.1%}, themselves {replaced[1]:.1%}, "
                               f"another piece {replaced[2]:.1%}"),
        ("unknown pieces", f"{unknown / max(all_tokens, 1):.3%}"),
        ("sentence order", f"{one / max(zero + one, 1):.1%} labelled 1; asked of "
                           f"{(zero + one) / max(zero + one + unasked, 1):.1%} of the pairs"),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def draw(figures: dict[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Draws the figures of ``measure`` to a PNG. Raises StorageError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    panels = (
        ("row_tokens", "real tokens per row"), ("pair_tokens", "tokens per pair"),
        ("mask_rates", "masked share per row"),
    )  # fmt: skip
    for axis, (name, title) in zip(axes, panels, strict=False):
        axis.hist(figures[name], bins=40, color="#4477aa")
        axis.set(title=title, ylabel="count")
    shares = (
        (np.bincount(figures["masked_runs"], minlength=7)[1:7], "words per masked run",
         [str(n) for n in range(1, 7)]),
        (figures["replaced"], "masked places hold", ["[MASK]", "itself", "other"]),
        (np.append(figures["order"], 0)[:3], "sentence order", ["label 0", "label 1", "not asked"]),
    )  # fmt: skip
    for axis, (counts, title, names) in zip(axes[3:], shares, strict=True):
        axis.bar(names, counts / max(counts.sum(), 1), color="#4477aa")
        axis.set(title=title, ylabel="share")
    slots = max(figures["row_slots"].sum(), 1)
    unknown, tokens = figures["unknown"].tolist()
    figure.suptitle(
        f"padding {1 - figures['row_tokens'].sum() / slots:.2%}, "
        f"unknown pieces {unknown / max(tokens, 1):.3%}"
    )
    target = Path(path)
    temporary = target.with_name(target.name + ".unfinished")
    try:
        figure.savefig(temporary, format="png", dpi=110)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {target}: {error}: name a writable file") from error


def _word(
    batch: Batch, row: int, place: int, label: int | None, vocabulary: Vocabulary, kind: int,
    colour: bool,
) -> str:  # fmt: skip
    seen = int(batch["input_ids"][row, place])
    piece = vocabulary.id_to_token(seen)
    if label is None:
        special = seen in (vocabulary.cls_id, vocabulary.sep_id)
        style = "special" if special else ("second" if kind else "")
    elif seen == vocabulary.mask_id:
        piece, style = f"[MASK|{vocabulary.id_to_token(label)}]", "masked"
    elif seen == label:
        piece, style = f"[={piece}]", "kept"
    else:
        piece, style = f"[{piece}|{vocabulary.id_to_token(label)}]", "random"
    return f"\x1b[{_COLOURS[style]}m{piece}\x1b[0m" if colour and style else piece


def _figures(batch: Batch, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    segments = batch["segment_ids"]
    real = segments > 0
    rows = np.flatnonzero(real.any(axis=1))
    tokens = real.sum(axis=1)
    most = int(segments.max(initial=0))
    per_pair = np.stack([(segments == pair).sum(axis=1) for pair in range(1, most + 1)] or [tokens])
    used = batch["mlm_weights"] > 0
    line, _ = np.nonzero(used)
    place, label = batch["mlm_positions"][used], batch["mlm_labels"][used]
    seen = batch["input_ids"][line, place]
    text = batch["input_ids"].copy()
    text[line, place] = label
    masked = np.zeros(text.shape, bool)
    masked[line, place] = True
    # A run goes on where a masked place follows a masked place; its words begin at start pieces.
    begins_run = masked & ~np.pad(masked[:, :-1], ((0, 0), (1, 0)))
    begins_word = masked & (vocabulary.starts_word[text] | begins_run)
    first = np.cumsum(begins_run.ravel())[begins_word.ravel()]
    asked = (batch["sop_weights"] > 0) & (np.arange(batch["sop_weights"].shape[1]) < most)
    ones = int((batch["sop_labels"][asked] == 1).sum())
    pairs = int((per_pair > 0).sum())
    kept = int((seen == label).sum())
    hidden = int(((seen == vocabulary.mask_id) & (seen != label)).sum())
    return {
        "row_tokens": tokens[rows],
        "row_slots": np.full(len(rows), segments.shape[1]),
        "pair_tokens": per_pair[per_pair > 0],
        "mask_rates": used.sum(axis=1)[rows] / tokens[rows],
        "masked_runs": np.bincount(first)[1:] if len(first) else np.zeros(0, np.int64),
        "replaced": np.array([hidden, kept, len(seen) - kept - hidden]),
        "unknown": np.array([int((text[real] == vocabulary.unk_id).sum()), int(real.sum())]),
        "order": np.array([int(asked.sum()) - ones, ones, pairs - int(asked.sum())]),
    }


def _quantiles(values: np.ndarray) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"mean {values.mean():.1f} (5% {low:.0f}, median {middle:.0f}, 95% {high:.0f})"
