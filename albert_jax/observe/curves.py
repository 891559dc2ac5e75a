"""Draws the curves of a run: losses beside those of guessing, scores, learning rate, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from albert_jax import files
from albert_jax.config import Config
from albert_jax.errors import DataError
from albert_jax.observe import style
from albert_jax.observe.metrics import Row, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {"train": ("training", "-"), "evaluation": ("held out", "o-")}
"""Name and style of curves by kind of row."""
FEW = 15
"""Curves with fewer points show each of them."""
LOG_RATIO = 20
"""Values are drawn on a logarithmic axis if the largest is so many times the smallest."""


@dataclass(frozen=True)
class Quantity:
    """A field of metrics.jsonl and how it is drawn."""

    field: str
    name: str
    color: str


@dataclass(frozen=True)
class Panel:
    """Quantities with one unit."""

    title: str
    unit: str
    quantities: Sequence[Quantity]
    lines: Mapping[str, float]
    """Numbers to compare with, by name."""
    ticks: str = "{x:g}"
    limits: tuple[float, float] | None = None
    """Bounds of the axis, where numbers mean something by themselves."""
    logarithmic: bool = False


def draw(run_dir: str, config: Config | None = None) -> str:
    """Writes RUN/curves.png from RUN/metrics.jsonl and returns its path.

    Raises DataError if nothing has been logged yet, StorageError if it cannot be written.
    """
    rows = read_rows(run_dir)
    if not rows:
        raise DataError(f"{run_dir} has no rows in metrics.jsonl: train first, then draw")
    path = files.join(run_dir, "curves.png")
    files.write(path, render(rows, run_dir, config))
    return path


def render(rows: Sequence[Row], run_dir: str = "", config: Config | None = None) -> bytes:
    """The curves of rows of metrics.jsonl as a PNG; panels without numbers are left out."""
    panels = [panel for panel in panels_of(rows, config) if any(curves_of(rows, panel))]
    columns = 2 if len(panels) > 1 else 1
    lines = max(1, -(-len(panels) // columns))
    last = max(row["step"] for row in rows)
    with style.style_context():
        heading, *notes = title(run_dir, config)
        height = 3.1 * lines + 0.4 + 0.15 * len(notes)
        figure = style.figure(6.5 * columns, height, heading, "\n".join(notes))
        for number, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(lines, columns, number)
            _draw(axes, panel, curves_of(rows, panel))
            axes.set_xlim(0, last * 1.02)
            for step in phase_starts(rows):
                axes.axvline(step, color=style.FAINT, linestyle=":", linewidth=1)
        return style.figure_bytes(figure)


def title(run_dir: str, config: Config | None) -> list[str]:
    """The run and its subject, and then its phases, a line each."""
    name = "/".join(run_dir.rstrip("/").split("/")[-2:])
    if config is None:
        return [name]
    model, task = config.model, config.task
    subject = "pretraining" if task is None else f"fine-tuning for {task.name}"
    lines = [
        f"{name}: {subject}, {config.steps:,} steps, {model.num_hidden_layers} layers of "
        f"{model.hidden_size}, {config.optimizer.name}"
    ]
    for number, phase in enumerate(config.phases):
        rows = f"{phase.batch_size} rows of {phase.sequence_length} tokens"
        masked = f", {phase.objective.mask_rate:.0%} masked" if task is None else ""
        lines.append(f"phase {number}: {phase.steps:,} steps with {rows}{masked}")
    if len(config.phases) > 1:
        lines[-1] += "; a dotted line is where a phase begins"
    return lines


def phase_starts(rows: Sequence[Row]) -> list[int]:
    """Last logged step before each phase but the first."""
    train = [row for row in rows if row["kind"] == "train"]
    pairs = zip(train, train[1:], strict=False)
    return [a["step"] for a, b in pairs if a.get("phase") != b.get("phase")]


def panels_of(rows: Sequence[Row], config: Config | None = None) -> list[Panel]:
    """The panels of a run, with and without numbers."""
    fine_tuned = config is not None and config.task is not None
    first = _fine_tuning(rows, config) if fine_tuned else _pretraining(rows)
    color = style.COLORS["state"]
    return [
        *first,
        Panel("Learning rate", "", [Quantity("learning_rate", "", color)], {}),
        Panel(
            "Gradient norm", "before clipping", [Quantity("grad_norm", "", color)], {},
            logarithmic=True,
        ),
        Panel(
            "Speed", "real tokens per second", [Quantity("tokens_per_second", "", color)], {},
            "{x:,.0f}",
        ),
    ]  # fmt: skip


def _pretraining(rows: Sequence[Row]) -> list[Panel]:
    color = style.COLORS
    unigram = [row["unigram_loss"] for row in rows if row.get("unigram_loss") is not None][-1:]
    accuracies = [
        Quantity("mlm_accuracy", "masked token", color["masked"]),
        Quantity("mlm_top5_accuracy", "masked token among five guesses", color["top five"]),
        Quantity("sop_accuracy", "sentence order", color["order"]),
        Quantity("word_accuracy", "word", color["order"]),
        Quantity("sop_cut_accuracy", "order, told by the cut alone", color["cut"]),
        Quantity("minimal_pairs_accuracy", "minimal pairs", color["task"]),
    ]
    orders = any(row.get("sop_accuracy") is not None for row in rows)
    second = Panel(
        "Sentence order: loss", "nats per pair", [Quantity("sop_loss", "", color["order"])],
        {"chance: ln 2 = 0.69": math.log(2)},
    )  # fmt: skip
    if any(row.get("word_loss") is not None for row in rows) and not orders:
        second = Panel("Words: loss", "nats", [Quantity("word_loss", "", color["order"])], {})
    return [
        Panel(
            "Masked tokens: loss", "nats per masked token",
            [Quantity("mlm_loss", "", color["masked"])],
            {f"unigram frequencies: {loss:.2f}": loss for loss in unigram},
        ),
        second,
        Panel(
            "Accuracy", "share of right answers", accuracies,
            {"chance for two answers: 50%": 0.5} if orders else {}, "{x:.0%}",
        ),
    ]  # fmt: skip


def _fine_tuning(rows: Sequence[Row], config: Config | None) -> list[Panel]:
    """Loss and its parts, and the task's scores, those between 0 and 1 apart from the others."""
    assert config is not None and config.task is not None
    fields = {name for row in rows if row["kind"] == "train" for name in row}
    parts = sorted(name for name in fields if name.endswith("_loss"))
    losses = [Quantity("loss", "loss" if len(parts) > 1 else "", style.COLORS["loss"])]
    if len(parts) > 1:
        losses += _named(parts)
    labels = len(getattr(config.task, "labels", ()))
    chance = {}
    if parts == ["class_loss"] and labels > 1:
        chance = {f"chance: ln {labels} = {math.log(labels):.2f}": math.log(labels)}
    unit = "squared error" if parts == ["squared_error_loss"] else "nats"
    panels = [Panel("Loss", unit, losses, chance)]
    largest = {
        name: max((abs(row[name]) for row in rows if row.get(name) is not None), default=0.0)
        for name in config.task.metrics
    }
    errors = [name for name in largest if "error" in name]
    shares = [name for name in largest if largest[name] <= 1 and name not in errors]
    percents = [name for name in largest if name not in {*shares, *errors}]
    right = [Quantity(n, "right answers", style.FAINT) for n in sorted(fields) if "accuracy" in n]
    lowest = min((row.get(name) or 0.0 for row in rows for name in shares), default=0.0)
    return [
        *panels,
        Panel("Score", "score", [*_named(shares), *right[:1]], {}, limits=(min(0.0, lowest), 1)),
        Panel("Score", "score, at most 100", _named(percents), {}, limits=(0, 100)),
        Panel("Error", "smaller is better", _named(errors), {}),
    ]


def _named(fields: Sequence[str]) -> list[Quantity]:
    colors = style.SCORES
    return [
        Quantity(field, field.replace("_", " "), colors[number % len(colors)])
        for number, field in enumerate(fields)
    ]


def curves_of(
    rows: Sequence[Row], panel: Panel
) -> list[tuple[Quantity, str, list[int], list[float]]]:
    """Quantity, kind, steps and values of each curve that has numbers.

    Held-out rows of another phase are other rows, so a curve through them is interrupted by a value
    that is not a number.
    """
    curves = []
    for quantity in panel.quantities:
        for kind in KINDS:
            points: list[tuple[int, float]] = []
            phase = None
            for row in rows:
                if row["kind"] == kind and row.get(quantity.field) is not None:
                    if kind == "evaluation" and points and row.get("phase") != phase:
                        points.append((row["step"], math.nan))
                    points.append((row["step"], row[quantity.field]))
                    phase = row.get("phase")
            if points:
                steps, values = zip(*points, strict=True)
                curves.append((quantity, kind, list(steps), list(values)))
    return curves


def _draw(
    axes: Axes, panel: Panel, curves: Sequence[tuple[Quantity, str, list[int], list[float]]]
) -> None:
    """One panel, with its names between title and axes, where no curve is."""
    everything = [value for *_, values in curves for value in values if not math.isnan(value)]
    shown = "{:.1%}".format if "%" in panel.ticks else _short
    for quantity, kind, steps, values in curves:
        name, marker = KINDS[kind]
        if len(steps) < FEW:
            marker = "o-" if kind == "evaluation" else ".-"
        label = ", ".join(filter(None, (quantity.name, name)))
        color = quantity.color
        axes.plot(steps, values, marker, color=color, label=f"{label}: {shown(values[-1])}")
    for name, value in panel.lines.items():
        axes.axhline(value, color="black", linestyle="--", linewidth=1, label=name)
    if panel.limits is not None:
        low, high = panel.limits
        axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.set_xlabel("step")
    axes.set_ylabel(panel.unit)
    if panel.logarithmic and min(everything) > 0 and max(everything) > LOG_RATIO * min(everything):
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(panel.ticks)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    count = len(curves) + len(panel.lines)
    named = count > 1 or curves[0][0].name
    axes.set_title(panel.title, pad=6 + (15 * -(-count // 2) if named else 0))
    if named:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, borderpad=0
        )


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
