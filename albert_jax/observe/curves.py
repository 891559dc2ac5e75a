"""Draws the curves of a run: losses beside the unigram loss, accuracies, learning rate, speed."""

from __future__ import annotations

import io
from collections.abc import Sequence

from albert_jax import files
from albert_jax.errors import DataError
from albert_jax.observe.metrics import Row, read_rows

_PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str, str], ...]], ...] = (
    (
        "masked language model: nats per masked token",
        "linear",
        (
            ("train", "mlm_loss", "training", "-"),
            ("evaluation", "mlm_loss", "held out", "o-"),
            ("evaluation", "unigram_loss", "unigram frequencies", "k--"),
        ),
    ),
    (
        "sentence order: nats",
        "linear",
        (
            ("train", "sop_loss", "training", "-"),
            ("evaluation", "sop_loss", "held out", "o-"),
        ),
    ),
    (
        "accuracy",
        "linear",
        (
            ("train", "mlm_accuracy", "MLM, training", "-"),
            ("evaluation", "mlm_accuracy", "MLM, held out", "o-"),
            ("evaluation", "mlm_top5_accuracy", "MLM among five, held out", "s-"),
            ("evaluation", "pairs_accuracy", "minimal pairs", "^-"),
            ("train", "sop_accuracy", "SOP, training", "-"),
            ("evaluation", "sop_accuracy", "SOP, held out", "o-"),
            ("evaluation", "sop_cut_accuracy", "SOP from the cut alone", "k--"),
        ),
    ),
    ("learning rate", "linear", (("train", "learning_rate", "learning rate", "-"),)),
    ("gradient norm", "log", (("train", "gradient_norm", "gradient norm", "-"),)),
    ("real tokens per second", "linear", (("train", "tokens_per_second", "speed", "-"),)),
)
"""The panels: title, scale of the y axis, and curves (kind of row, field, label, style)."""


def draw(run_dir: str) -> str:
    """Writes RUN/curves.png from RUN/metrics.jsonl and returns its path.

    Raises DataError if nothing has been logged yet, StorageError if it cannot be written.
    """
    rows = read_rows(run_dir)
    if not rows:
        raise DataError(f"{run_dir} has no rows in metrics.jsonl: train first, then draw")
    path = files.join(run_dir, "curves.png")
    files.write(path, render(rows))
    return path


def render(rows: Sequence[Row]) -> bytes:
    """The curves of rows of metrics.jsonl as a PNG; panels without numbers are left out."""
    # The object interface instead of pyplot leaves the caller's backend and figures alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = []
    for title, scale, curves in _PANELS:
        points = [(label, style, *_points(rows, kind, key)) for kind, key, label, style in curves]
        if points := [curve for curve in points if curve[2]]:
            panels.append((title, scale, points))
    columns = 2 if len(panels) > 1 else 1
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(6 * columns, 3.2 * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, scale, points) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, number)
        for label, style, steps, values in points:
            axes.plot(steps, values, style, label=label, linewidth=1.2, markersize=4)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_yscale(scale)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _points(rows: Sequence[Row], kind: str, key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in rows if row.get("kind", "train") == kind]
    numbers = [row for row in rows if isinstance(row.get(key), int | float)]
    return [float(row["step"]) for row in numbers], [float(row[key]) for row in numbers]
