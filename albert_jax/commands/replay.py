"""`albert-jax replay`: a step of a run done again, with its rows, worst first."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import OptionalFile, Run, check_within
from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.train.replay import RecordedStep, ReopenedRun, Replay

SPIKE = 3.0
"""A gradient norm so many times that of other steps is called a spike."""
NAMED_ROWS = 8
"""Most rows that a line names."""


@dataclass(frozen=True, kw_only=True)
class ReplayStep:
    """Do a step of a run again, compare it with the record, and show its rows, worst first.

    The run's folder is only read. A row is measured by its mean loss and by the norm of its
    gradient, also as a share of the sum of these norms. Worst is the row whose loss or norm lies
    farthest above that of the median row, in median absolute deviations.
    """

    folder: Positional[Run]
    """Folder of a pretraining or fine-tuning run."""
    step: int
    """Step as metrics.jsonl counts them, from 1."""
    rows: int = 5
    """Number of rows of the batch to print."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR|FILE")] = ()
    """New paths of the run's prepared folders (or training examples), if they were moved."""
    other_data: bool = False
    """Go on even if the data are not those of the run."""
    out: OptionalFile = None
    """File for the result with all rows, as JSON."""
    around: int = 0
    """Number of steps before and after --step whose loss and gradient norm are drawn, in FILE.svg
    beside --out."""

    def run(self) -> None:
        """Prints the step, and writes the files that were asked for."""
        check_within(1, step=self.step, rows=self.rows)
        check_within(0, around=self.around)
        if self.around and self.out in (None, "-"):
            raise ConfigError("--around needs --out FILE: it draws FILE.svg beside it")
        from albert_jax import files
        from albert_jax.train import replay

        past = replay.look_up(self.folder, self.step, around=self.around)
        past, reopened = self._reopened(past)
        past = replay.check_data(past, reopened.facts, allow_other=self.other_data)
        found = replay.replay(past, reopened)
        order = found.measures.worst_first
        for line in report_lines(found):
            print(line)
        text = reopened.text(self.step - 1, found.batch, order[: self.rows].tolist())
        for row, (lines, origin) in zip(order, text, strict=False):
            print(*row_lines(found, int(row), lines, origin), sep="\n")
        if "mlm_positions" in found.batch:
            from albert_jax.data.batches.show import LEGEND

            print(LEGEND)
        if self.out is not None:
            content = json.dumps(as_json(found, reopened), indent=1, ensure_ascii=False)
            if self.out == "-":
                print(content)
                return
            files.write(self.out, content.encode())
            if self.around:
                picture = f"{self.out}.svg"
                files.write(picture, draw(found))
                print(f"{picture} shows the steps around it", file=sys.stderr)

    def _reopened(self, past: RecordedStep) -> tuple[RecordedStep, ReopenedRun]:
        if past.config.task is None:
            from albert_jax.train import pretraining

            return pretraining.reopen_run(past, self.data)
        from albert_jax.finetuning import finetune

        if len(self.data) > 1:
            raise ConfigError("--data: name one file, the training examples of the run")
        return finetune.reopen_run(past, *self.data)


def report_lines(found: Replay) -> Iterator[str]:
    """The step beside its record, why they differ if they do, and which rows explain it."""
    from albert_jax.train.compiled_steps import depth_at

    past, config = found.past, found.past.config
    number, _ = config.phase_at(past.step - 1)
    depth = depth_at(config, past.step - 1)
    drawn = f", depth {depth}" if depth is not None else ""
    begin = f"checkpoint {found.start}" if found.start else "the initial state"
    yield f"{past.folder}: step {past.step} (phase {number}{drawn}), replayed from {begin}"
    values = found.metrics[past.step]
    losses = {name: value for name, value in values.items() if name.endswith("loss")}
    for name, value in {**losses, "grad_norm": values["grad_norm"]}.items():
        yield f"  {name:16} {value!r}"
    yield from comparison_lines(found)
    yield from verdict_lines(found)


def comparison_lines(found: Replay) -> Iterator[str]:
    """The record beside the row that was made again, and what they have in common."""
    past = found.past
    if past.compared is None:
        yield f"no row of metrics.jsonl is at or after step {past.step}: nothing to compare with"
        return
    recorded = next(row for row in past.rows if row["step"] == past.compared)
    again = next(row for row in found.rows if row["step"] == past.compared)
    begin = max((row["step"] for row in past.rows if row["step"] < past.compared), default=0) + 1
    span = f"mean of steps {begin} to {past.compared}"
    if begin == past.compared:
        span = f"of step {begin}"
    elif past.compared != past.step:
        yield (
            f"step {past.step} has no row of its own in metrics.jsonl: the next one, of step "
            f"{past.compared}, was made again, too"
        )
    yield f"{'':18} {'recorded':22} {'replayed':22}"
    names = [name for name in recorded if name.endswith("loss")]
    for name in [*names, *({"grad_norm"} & recorded.keys())]:
        what = f"of step {past.compared}" if name == "grad_norm" else span
        yield f"  {name:16} {_number(recorded[name]):22} {_number(again.get(name)):22} {what}"
    differences = found.differences()
    wrong = {step: names for step, names in differences.items() if names}
    steps = ", ".join(map(str, list(differences)[-NAMED_ROWS:]))
    if not wrong:
        yield f"equal to the last digit in all fields of the rows of step {steps}"
    for step, names in list(wrong.items())[:1]:
        yield f"the row of step {step} differs in {', '.join(names)}"
    if past.differences_now:
        yield f"not as in the run, so that numbers may differ: {'; '.join(past.differences_now)}"
    elif wrong:
        init = past.record.get("init")
        started = f", or the weights of {init} changed since" if init and not found.start else ""
        yield (
            "devices, packages and data are those of the record, so the run was done by others in "
            f"part{started}"
        )


def verdict_lines(found: Replay) -> Iterator[str]:
    """Yields lines on how far the step is unlike others, and on the rows that explain it."""
    step, values, measures = found.past.step, found.metrics[found.past.step], found.measures
    norm, typical = values["grad_norm"], found.typical_norm()
    rows = measures.outliers.tolist()
    named = ", ".join(map(str, rows[:NAMED_ROWS])) + ", ..." * (len(rows) > NAMED_ROWS)
    if not (math.isfinite(norm) and math.isfinite(values["loss"])):
        guilty = f"not finite in row {named}"
        if len(rows) == len(measures.loss):
            guilty = "not finite in any row, so the parameters are at fault and not the text"
        elif measures.finite.all():
            guilty = "finite in each row alone"
        yield f"step {step} was skipped: loss or gradient is {guilty}"
        return
    if typical is not None and norm > SPIKE * typical:
        yield f"step {step} is a spike: its gradient norm is {norm / typical:.1f} times the usual"
    if rows:
        yield f"rows that stand out from the {len(measures.loss)} of the batch: {named}"


def row_lines(found: Replay, row: int, lines: Sequence[str], origin: Sequence[str]) -> list[str]:
    """A row of the batch for a person."""
    measures = found.measures
    loss, norm = (float(column[row]) for column in measures)
    size, *text = lines
    return [
        f"row {row}: loss {loss:.4f}, gradient norm {norm:.4g} ({measures.share[row]:.1%} of all "
        f"rows'), {size}",
        *text,
        *(f"    from {place}" for place in origin),
    ]


def as_json(found: Replay, reopened: ReopenedRun) -> dict[str, Any]:
    """The result with all rows of the batch; numbers that are not finite are None."""
    from albert_jax.observe.metrics import plain

    past, order = found.past, found.measures.worst_first.tolist()
    text = reopened.text(past.step - 1, found.batch, order)
    recorded = next((row for row in past.rows if row["step"] == past.compared), None)
    again = next((row for row in found.rows if row["step"] == past.compared), None)
    differences = found.differences()
    return {
        "step": past.step,
        "start": found.start,
        "metrics": plain(found.metrics[past.step]),
        "recorded": recorded,
        "replayed": again,
        "equal": None if not differences else not any(differences.values()),
        "differences_now": list(past.differences_now),
        "outliers": found.measures.outliers.tolist(),
        "rows": [
            {"row": row}
            | plain({n: column[row] for n, column in found.measures._asdict().items()})
            | {"text": lines, "origin": origin}
            for row, (lines, origin) in zip(order, text, strict=True)
        ],
    }


def draw(found: Replay) -> bytes:
    """Loss and gradient norm of the steps around it, as an SVG."""
    from albert_jax.observe import figures

    past = found.past
    wanted = range(past.first, past.last + 1)
    panels = {}
    for name, computed, field in (
        ("loss", "loss", "loss"),
        ("gradient norm", "grad_norm", "grad_norm"),
    ):
        values = {s: m[computed] for s, m in found.metrics.items() if s in wanted}
        rows = [row for row in past.rows if row["step"] in wanted]
        recorded = {row["step"]: row[field] for row in rows if row.get(field) is not None}
        panels[name] = values, recorded
    each = past.config.run.logging_steps
    note = f"a recorded loss is the mean of {each} steps" if each > 1 else ""
    title = f"{past.folder.rstrip('/').rpartition('/')[2]}, step {past.step}"
    return figures.replayed_steps(title, note, panels, past.step)


def _number(value: float | None) -> str:
    return "not finite" if value is None else repr(value)
