"""Masked symbols and words of a phoneme model beside n-grams of the same training text.

    python benchmarks/phonemes.py RUN ... [--rows 8192] [--symbols 20000000] [--draw OUT.svg]

All numbers are shares of right answers at the masked places of the held-out rows of each run. The
n-grams are those of its training text:

- around: the symbol that stood most often behind what the row shows at the place and two places to
  each side, masks included, so that it sees what the model sees;
- left: the symbol that followed the four true symbols to the left most often, also where these are
  masked, so that it sees more than the model does;
- word: the commonest word, and the commonest word behind what "around" sees.

A context that the training text lacks is shortened from both sides, or from the left. The drawing
shows the evaluations of the runs over minutes of training, with "around" as dashed lines.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from leaderboard import step_seconds

from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.evaluation import pretraining
from albert_jax.model_io import model as models
from albert_jax.observe import style
from albert_jax.observe.metrics import read_rows

AROUND = "5-gram around"
ROWS = 256
LABEL_BITS = 20
"""Symbols and words are below 2**20, and five symbols below 2**43."""

Table = list[tuple[str, str, float]]
"""What is predicted, by what, and the share of right answers."""


class MostLikely:
    """The commonest label behind a context; both are numbers."""

    def __init__(self, contexts: np.ndarray, labels: np.ndarray) -> None:
        pairs, counts = np.unique((contexts << LABEL_BITS) | labels, return_counts=True)
        context, label = pairs >> LABEL_BITS, pairs & ((1 << LABEL_BITS) - 1)
        order = np.lexsort((-label, counts, context))  # The last of each context is commonest.
        last = np.append(np.diff(context[order]) != 0, True)
        self.contexts, self.labels = context[order][last], label[order][last]

    def __call__(self, contexts: np.ndarray) -> np.ndarray:
        """Labels of contexts; -1 where a context is new."""
        at = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        return np.where(self.contexts[at] == contexts, self.labels[at], -1)


class BackOff:
    """Contexts of several lengths, the longest one that is known first."""

    def __init__(self, contexts: Sequence[np.ndarray], labels: np.ndarray) -> None:
        self.orders = [MostLikely(of_order, labels) for of_order in contexts]

    def accuracy(self, contexts: Sequence[np.ndarray], labels: np.ndarray) -> float:
        """Share of right labels."""
        found = np.full(len(labels), -1)
        for order, of_order in zip(self.orders, contexts, strict=True):
            found = np.where(found < 0, order(of_order), found)
        return float(np.mean(found == labels))


def numbers(symbols: np.ndarray, size: int) -> np.ndarray:
    """Each row of symbols as an integer."""
    total = np.zeros(len(symbols), np.int64)
    for column in symbols.T:
        total = total * (size + 1) + column
    return total


def around(batch: dict, size: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Windows of 5, 3, 1 and 0 symbols at the masked places of a batch; their symbols and words."""
    used = batch["mlm_weights"] > 0
    row, place = np.nonzero(used)[0], batch["mlm_positions"][used]
    shown = np.where(batch["segment_ids"] > 0, batch["input_ids"], size)
    shown = np.pad(shown, ((0, 0), (2, 2)), constant_values=size)
    window = np.stack([shown[row, place + i] for i in range(5)], axis=1)
    contexts = [numbers(window[:, i : 5 - i], size) for i in range(3)]
    contexts.append(np.zeros(len(row), np.int64))
    return contexts, batch["mlm_labels"][used], batch["word_labels"][used]


def left(batch: dict, size: int) -> list[np.ndarray]:
    """The 4, 3, 2, 1 and 0 true symbols left of the masked places of a batch."""
    used = batch["mlm_weights"] > 0
    row, place = np.nonzero(used)[0], batch["mlm_positions"][used]
    true = np.where(batch["segment_ids"] > 0, batch["input_ids"], size)
    true[row, place] = batch["mlm_labels"][used]
    true = np.pad(true, ((0, 0), (4, 0)), constant_values=size)
    before = np.stack([true[row, place + i] for i in range(4)], axis=1)
    return [numbers(before[:, i:], size) for i in range(5)]


def left_of_text(corpora: Sequence[Corpus], size: int, limit: int) -> BackOff:
    """The n-grams to the left of all symbols of a text, up to a limit."""
    parts, count = [], 0
    windows = ((corpus, window) for corpus in corpora for window in range(corpus.num_windows))
    for corpus, window in windows:
        if count >= limit:
            break
        parts.append(corpus.ids([window]).astype(np.int64))
        count += len(parts[-1])
    text = np.concatenate([np.full(4, size), *parts])
    before = np.lib.stride_tricks.sliding_window_view(text, 5)
    return BackOff([numbers(before[:, i:4], size) for i in range(5)], before[:, 4])


def joined(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The arrays of several batches one after the other."""
    return [np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)]


def measure(model: models.Model, rows: int, symbols: int) -> Table:
    """The numbers of one run."""
    config, size = model.run_config, model.vocabulary.size
    objective = dataclasses.replace(
        config.phases[-1].objective, word_prediction="masked", mask_rate=pretraining.MASK_RATE
    )
    phase = dataclasses.replace(config.phases[-1], objective=objective, batch_size=ROWS)
    config = dataclasses.replace(config, phases=(phase,))
    train = pretraining.training_corpora(model)
    held_out = pretraining.held_out_batches(
        pretraining.held_out_corpora(train),
        phase,
        model.vocabulary,
        max_samples=config.run.max_eval_samples,
        batch_size=pretraining.BATCH_SIZE,
    )
    reference = pretraining.Reference.from_corpora(train, model.vocabulary)
    ours = pretraining.measure(held_out, pretraining.local_sums(model.params, config), reference)
    builder = BatchBuilder(train, model.vocabulary, phase, seed=1, phase_index=0)
    steps = min(builder.rows_per_epoch(), rows) // ROWS
    known = [around(builder.batch(step, np.arange(ROWS)), size) for step in range(max(1, steps))]
    asked = [around(batch, size) for batch in held_out]
    windows, shown = joined([k[0] for k in known]), joined([a[0] for a in asked])
    befores = joined([left(batch, size) for batch in held_out])
    table = [("symbol", "model", ours["mlm_accuracy"])]
    for what, i in (("symbol", 1), ("word", 2)):
        labels = np.concatenate([k[i] for k in known]).astype(np.int64)
        right = np.concatenate([a[i] for a in asked])
        if what == "word":
            table.append((what, "model", ours["word_accuracy"]))
        table.append((what, AROUND, BackOff(windows, labels).accuracy(shown, right)))
        common = BackOff(windows[-1:], labels).accuracy(shown[-1:], right)
        table.append((what, "commonest", common))
        if what == "symbol":
            to_left = left_of_text(train, size, symbols).accuracy(befores, right)
            table.append((what, "5-gram left", to_left))
    print(f"{len(right):,} masked places; {ours['nats_below_unigram']:.3f} nats below unigram")
    return table


def over_minutes(run: str) -> list[tuple[float, float, float]]:
    """Minutes of training, and shares of right symbols and words, at each evaluation of a run."""
    minutes, found = 0.0, []
    for row in read_rows(run):
        if row["kind"] == "train":
            minutes += step_seconds(row) / 60
        elif row["kind"] == "evaluation":
            found.append((minutes, row["mlm_accuracy"], row["word_accuracy"]))
    return found


def draw(tables: dict[str, Table], path: str) -> None:
    """One panel for symbols and one for words, a color for each run."""
    with style.style_context():
        figure = style.figure(8.0, 3.6, "Phonemes: right answers at masked places", "")
        for panel, what in enumerate(("symbol", "word")):
            axes = figure.add_subplot(1, 2, panel + 1)
            for (run, table), color in zip(tables.items(), style.SCORES, strict=False):
                points = over_minutes(run)
                axes.plot(
                    [point[0] for point in points], [100 * point[1 + panel] for point in points],
                    color=color, marker="o", markersize=3, label=os.path.basename(run),
                )  # fmt: skip
                [line] = [share for of, by, share in table if (of, by) == (what, AROUND)]
                axes.axhline(100 * line, color=color, linestyle="--", linewidth=1)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("minutes of training")
            axes.set_ylabel(f"{what}s right (%); dashed: 5-gram")
        axes.legend(loc="lower right")
        figure.savefig(path, format="svg")


def main() -> None:
    """Prints a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--draw", metavar="OUT.svg")
    parser.add_argument("--rows", type=int, default=8192, help="training rows for `around`")
    parser.add_argument("--symbols", type=int, default=20_000_000, help="symbols for `left`")
    asked = parser.parse_args()
    tables = {}
    for run in asked.runs:
        print(run)
        tables[run] = measure(models.load(run), asked.rows, asked.symbols)
        for what, by, share in tables[run]:
            print(f"{what:>8}  {by:<14} {share:8.1%}", flush=True)
    if asked.draw:
        draw(tables, asked.draw)


if __name__ == "__main__":
    main()
