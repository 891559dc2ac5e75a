"""Draws the curves of a run: losses beside the unigram line, accuracies, rate, speed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from albert_jax import files
from albert_jax.errors import DataError
from albert_jax.observe.metrics import read_rows


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


def render(rows: Sequence[Mapping[str, object]]) -> bytes:
    """The curves of rows of metrics.jsonl, as a PNG; a panel without numbers stays away."""
    # The object interface, not pyplot: a caller's backend and figures stay as they are.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [row for row in rows if row.get("kind", "train") == "train"]
    held_out = [row for row in rows if row.get("kind") == "evaluation"]
    panels = [panel for panel in _panels(train, held_out) if panel[2]]
    columns = 2 if len(panels) > 1 else 1
    lines = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(6 * columns, 3.2 * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, scale, curves) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, place + 1)
        for label, style, steps, values in curves:
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


Curve = tuple[str, str, list[float], list[float]]


def _panels(
    train: Sequence[Mapping[str, object]], held_out: Sequence[Mapping[str, object]]
) -> list[tuple[str, str, list[Curve]]]:
    def curves(*wanted: tuple[Sequence[Mapping[str, object]], str, str, str]) -> list[Curve]:
        found = [(label, style, *_points(rows, key)) for rows, key, label, style in wanted]
        return [curve for curve in found if curve[2]]

    return [
        (
            "masked language model: nats per masked piece",
            "linear",
            curves(
                (train, "mlm_loss", "training", "-"),
                (held_out, "mlm_loss", "held out", "o-"),
                (held_out, "unigram_loss", "unigram frequencies", "k--"),
            ),
        ),
        (
            "sentence order: nats",
            "linear",
            curves((train, "sop_loss", "training", "-"), (held_out, "sop_loss", "held out", "o-")),
        ),
        (
            "accuracy",
            "linear",
            curves(
                (train, "mlm_accuracy", "MLM, training", "-"),
                (held_out, "mlm_accuracy", "MLM, held out", "o-"),
                (held_out, "mlm_top5_accuracy", "MLM among five, held out", "s-"),
                (held_out, "pairs_accuracy", "minimal pairs", "^-"),
                (train, "sop_accuracy", "SOP, training", "-"),
                (held_out, "sop_accuracy", "SOP, held out", "o-"),
                (held_out, "sop_cut_accuracy", "SOP from the cut alone", "k--"),
            ),
        ),
        ("learning rate", "linear", curves((train, "learning_rate", "learning rate", "-"))),
        ("gradient norm", "log", curves((train, "gradient_norm", "gradient norm", "-"))),
        ("real tokens per second", "linear", curves((train, "tokens_per_second", "speed", "-"))),
    ]


def _points(rows: Sequence[Mapping[str, object]], key: str) -> tuple[list[float], list[float]]:
    pairs = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    return [float(s) for s, _ in pairs], [float(v) for _, v in pairs]  # type: ignore[arg-type]
