"""Figures of single measurements: rows, confusions, minimal pairs, replayed steps, depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from albert_jax.observe import style

MAX_NUMBERS = 20
"""Most labels of a matrix whose cells hold their numbers."""


def row_statistics(
    title: str, values: Mapping[str, np.ndarray], shares: Mapping[str, Mapping[str, float]]
) -> bytes:
    """Histograms of what varies among rows, and bars of shares, as an SVG.

    What is the same for all rows is said in the note below instead of drawn.
    """
    from matplotlib.ticker import MaxNLocator

    note, varying = [], {}
    for name, array in values.items():
        if array.size and array.min() == array.max():
            note.append(f"{name}: always {array[0]:.4g}")
        elif array.size:
            varying[name] = array
    count = len(varying) + len(shares)
    with style.style_context():
        figure = style.figure(3.4 * count, 3.2, title, "; ".join(note))
        for number, (name, array) in enumerate(varying.items(), start=1):
            axes = figure.add_subplot(1, count, number)
            weights = np.full(array.size, 1 / array.size)
            whole = np.issubdtype(array.dtype, np.integer)
            bins = (
                np.arange(array.min() - 0.5, array.max() + 1)
                if whole and np.ptp(array) < 64
                else 30
            )
            axes.hist(array, bins=bins, weights=weights, color=style.COLORS["masked"])
            axes.set(title=name, ylabel="share")
            axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter("{x:.0%}")
            if not whole:
                axes.xaxis.set_major_formatter("{x:.0%}")
        for number, (name, bars) in enumerate(shares.items(), start=len(varying) + 1):
            axes = figure.add_subplot(1, count, number)
            drawn = axes.bar([word.replace(" by ", "\nby ") for word in bars], list(bars.values()))
            for bar in drawn:
                bar.set_color(style.COLORS["order" if "order" in name else "masked"])
            axes.bar_label(drawn, fmt="{:.1%}")
            axes.set(title=name, ylabel="share", ylim=(0, 1))
            axes.yaxis.set_major_formatter("{x:.0%}")
        return style.figure_bytes(figure, "svg")


def confusion_matrix(title: str, note: str, labels: Sequence[str], counts: np.ndarray) -> bytes:
    """A confusion matrix as an SVG: rows are true labels, and colors the shares of a row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(labels)
    with style.style_context():
        edge = min(12.0, max(3.2, 0.75 * size))
        note += "\neach cell: number of examples, and share of the true label"
        figure = style.figure(edge + 2.2, edge + 1.4, title, note)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        ticks = range(size) if size <= 60 else []
        names = [labels[i] for i in ticks]
        axes.set_xticks(ticks, names, rotation=90 if size > 6 else 0)
        axes.set_yticks(ticks, names)
        axes.set(xlabel="predicted label", ylabel="true label")
        for i, j in np.ndindex(counts.shape) if size <= MAX_NUMBERS else ():
            axes.text(
                j, i, f"{counts[i, j]:,}\n{shares[i, j]:.0%}", ha="center", va="center",
                color="white" if shares[i, j] > 0.6 else "black", fontsize=9 if size < 9 else 6,
            )  # fmt: skip
        bar = figure.colorbar(image, shrink=0.8, format="{x:.0%}")
        bar.set_label("share of the true label")
        return style.figure_bytes(figure, "svg")


def minimal_pair_accuracies(
    title: str, found: Mapping[str, Sequence[Any]], counts: Mapping[str, int]
) -> bytes:
    """The accuracy (value, low, high) of each set of minimal pairs, as an SVG."""
    names = list(found)
    values, lows, highs = (np.array([found[name][i] for name in names]) for i in range(3))
    with style.style_context():
        figure = style.figure(
            7, 1.4 + 0.3 * len(names), title, "bars: 95% interval; dashed: chance for two sentences"
        )
        axes = figure.add_subplot()
        places = np.arange(len(names))
        axes.errorbar(
            values, places, xerr=[values - lows, highs - values], fmt="o",
            color=style.COLORS["task"], capsize=3,
        )  # fmt: skip
        axes.axvline(0.5, color="black", linestyle="--", linewidth=1)
        axes.set_yticks(places, [f"{name}, pairs: {counts[name]:,}" for name in names])
        axes.set(xlim=(-0.02, 1.02), xlabel="the acceptable sentence scores higher")
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter("{x:.0%}")
        return style.figure_bytes(figure, "svg")


def replayed_steps(
    title: str,
    note: str,
    panels: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]],
    step: int,
) -> bytes:
    """Quantities of steps as an SVG: (computed, recorded) values by step; a line marks `step`.

    What is not finite leaves a gap.
    """
    from matplotlib.ticker import MaxNLocator

    colors = {"loss": "loss", "gradient norm": "state"}
    with style.style_context():
        figure = style.figure(5.5 * len(panels), 3.4, title, note)
        for number, (name, (computed, recorded)) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), number)
            color = style.COLORS[colors[name]]
            axes.plot(list(computed), list(computed.values()), "-", color=color, label="replayed")
            axes.plot(list(recorded), list(recorded.values()), "o", color=color, label="recorded")
            axes.axvline(step, color="black", linestyle="--", linewidth=1, label=f"step {step}")
            axes.set_title(name)
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        return style.figure_bytes(figure, "svg")


def scores_by_depth(
    title: str,
    note: str,
    unit: str,
    values: Mapping[int, float],
    intervals: Mapping[int, Sequence[float]],
    guess: tuple[str, float] | None,
) -> bytes:
    """A score by the number of layers, with intervals (low, high), as an SVG.

    `guess` is the name and score of guessing, where there is one.
    """
    with style.style_context():
        figure = style.figure(6, 3.4, title, note)
        axes = figure.add_subplot()
        layers = sorted(values)
        axes.plot(layers, [values[n] for n in layers], "o-", color=style.COLORS["task"])
        for n in layers:
            axes.annotate(f"{values[n]:.3g}", (n, values[n]), (6, 4), textcoords="offset points")
            if n in intervals:
                low, high = intervals[n]
                axes.vlines(n, low, high, color=style.COLORS["task"], alpha=0.5)
        if guess is not None:
            axes.axhline(guess[1], color="black", linestyle="--", linewidth=1)
            axes.set_title(f"dashed: {guess[0]}, {guess[1]:.3g}")
        axes.set_xticks(layers)
        axes.margins(x=0.15)
        axes.set(xlabel="layers", ylabel=unit)
        return style.figure_bytes(figure, "svg")
