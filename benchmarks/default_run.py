"""Draws the picture of the README: the loss of a default run over its steps.

python benchmarks/default_run.py [runs/tiny/run] [--out docs/default-run.svg]

The run is that of `bash launch/local.sh`; `-- --run.eval-steps 200` behind it gives the held-out
curve more points than its four.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from albert_jax.observe.metrics import Row, read_rows


def draw(rows: list[Row]) -> Figure:
    """Training loss, held-out loss, and the loss of guessing by frequency alone."""
    train = [row for row in rows if row["kind"] == "train"]
    held_out = [row for row in rows if row["kind"] == "evaluation"]
    last = held_out[-1]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.plot(
        [row["step"] for row in train], [row["mlm_loss"] for row in train],
        color="#9aa5b1", linewidth=1.2, label="training",
    )  # fmt: skip
    axes.plot(
        [row["step"] for row in held_out], [row["mlm_loss"] for row in held_out],
        "o-", color="#1f5fa8", linewidth=2, markersize=4, label="held-out modules",
    )  # fmt: skip
    axes.axhline(
        last["unigram_loss"], color="#b3541e", linestyle="--", linewidth=1.2,
        label=f"word frequencies alone: {last['unigram_loss']:.2f}",
    )  # fmt: skip
    axes.annotate(
        f"{last['mlm_loss']:.2f}", (last["step"], last["mlm_loss"]), (0, 8),
        textcoords="offset points", ha="right", color="#1f5fa8",
    )  # fmt: skip
    starts = [a["step"] for a, b in zip(train, train[1:], strict=False) if b["phase"] != a["phase"]]
    for step in starts:
        axes.axvline(step, color="#9aa5b1", linestyle=":", linewidth=1)
        axes.annotate(
            "fewer masks", (step, 1), (4, -12), color="#6b7681", fontsize=8,
            xycoords=("data", "axes fraction"), textcoords="offset points",
        )  # fmt: skip
    axes.set_title("bash launch/local.sh: two CPU cores, the documentation of Python", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("masked tokens: loss in nats")
    axes.set_xlim(0, last["step"] * 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Reads the options and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/tiny/run")
    parser.add_argument("--out", type=Path, default=Path("docs/default-run.svg"))
    options = parser.parse_args()
    # Text stays text, and the same rows give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "albert_jax"}):
        draw(list(read_rows(options.run))).savefig(options.out, metadata={"Date": None})
    print(options.out)


if __name__ == "__main__":
    main()
