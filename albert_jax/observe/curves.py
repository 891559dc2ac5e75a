"""Draws the curves of a run: losses beside the unigram loss, accuracies, learning rate, speed."""

from __future__ import annotations

import io
from collections.abc import Sequence

from albert_jax import files
from albert_jax.errors import DataError
from albert_jax.observe.metrics import Row, read_rows

_PANELS = {
    "masked language model: nats per masked token": ("mlm_loss", "unigram_loss"),
    "sentence order: nats": ("sop_loss",),
    "accuracy": (
        "mlm_accuracy", "mlm_top5_accuracy", "pairs_accuracy", "sop_accuracy", "sop_cut_accuracy",
    ),
    "learning rate": ("learning_rate",),
    "gradient norm": ("gradient_norm",),
    "real tokens per second": ("tokens_per_second",),
}  # fmt: skip
"""Title of each panel and the fields of its curves."""
_KINDS = {"train": ("training", "-"), "evaluation": ("held out", "o-")}
"""Label and style of the curves by kind of row."""
_BASELINES = ("unigram_loss", "sop_cut_accuracy")
_LOGARITHMIC = ("gradient norm",)


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

    panels = {title: curves for title, keys in _PANELS.items() if (curves := _curves(rows, keys))}
    columns = 2 if len(panels) > 1 else 1
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(6 * columns, 3.2 * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, number)
        for label, style, steps, values in curves:
            axes.plot(steps, values, style, label=label, linewidth=1.2, markersize=4)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_yscale("log" if title in _LOGARITHMIC else "linear")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _curves(
    rows: Sequence[Row], keys: Sequence[str]
) -> list[tuple[str, str, list[int], list[float]]]:
    """Label, style, steps and values of each curve that has numbers."""
    curves = []
    for key in keys:
        for kind, (label, style) in _KINDS.items():
            points = [row for row in rows if row["kind"] == kind and row.get(key) is not None]
            if points:
                curves.append((
                    f"{key.replace('_', ' ')}, {label}",
                    "k--" if key in _BASELINES else style,
                    [row["step"] for row in points],
                    [row[key] for row in points],
                ))  # fmt: skip
    return curves
