"""Turns what the steps return into rows of the record, a progress line, and a word of warning."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import jax

from albert_jax.config import Config
from albert_jax.observe import collapse, flops
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console, progress_line
from albert_jax.observe.metrics import MetricsWriter
from albert_jax.train.task import Batch, Task

HISTORY = 64
"""Newest rows that a diagnosis looks at."""


class Report:
    """Reads each step's metrics one step late, so that logging never stalls the device.

    Only the leading process has a writer; the others read the metrics all the same, because
    whether to end a run must be decided alike everywhere.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        clock: Clock,
        console: Console,
        writer: MetricsWriter | None,
    ) -> None:
        self._config, self._task, self._clock = config, task, clock
        self._console, self._writer = console, writer
        self._pending: tuple[int, Mapping[str, Any], dict[str, float]] | None = None
        self._sums: dict[str, float] = {}
        self._seconds = 0.0
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._told = False
        self.skipped_in_a_row = 0
        """Steps in a row, up to the newest that was read, whose update was left out."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold so that the rows after a restart are those of a run that
        was never interrupted; plain JSON."""
        # A copy: the checkpoint is written while the next steps are already booked.
        stages = {name: seconds for name, seconds in self._clock.peek().items() if seconds}
        return {"sums": dict(self._sums), "seconds": self._seconds, "stages": stages}

    def restore(self, state: Mapping[str, Any]) -> float:
        """Goes on where `state` was taken; returns the seconds of the row that was begun."""
        self._sums, self._seconds = dict(state["sums"]), float(state["seconds"])
        stages = state["stages"]
        for name, seconds in stages.items():
            self._clock.add(name, seconds)
        return sum(stages.values())

    def step(self, step: int, metrics: Mapping[str, Any], batch: Batch) -> None:
        """Takes the metrics of step number `step` (counted from 1) and reads the one before.

        `batch` holds this process' rows; what is counted in them stands for all rows.
        """
        self.flush()
        self._pending = (step, metrics, self._task.count(batch))

    def flush(self) -> None:
        """Waits for the newest step and books it."""
        if self._pending is None:
            return
        step, metrics, counts = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        self.skipped_in_a_row = int(values["skipped_in_a_row"])
        if self.skipped_in_a_row:
            self._console.say(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: "
                "not finite, the update is left out"
            )
        else:
            booked = {"steps": 1.0} | {name: values[name] for name in values if _adds_up(name)}
            for name, value in (booked | counts).items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self._config.run.logging_steps == 0 or step == self._config.steps:
            self._row(step, values)

    def evaluation(self, step: int, phase: int, numbers: Mapping[str, float]) -> None:
        """Records the named numbers of an evaluation."""
        row = {"kind": "evaluation", "step": step, "phase": phase, **numbers}
        self._history.append(row)
        if self._writer is not None:
            self._writer.write(row)
        shown = "  ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in numbers.items()
        )
        self._console.say(f"step {step} held out: {shown}")

    def store(self) -> None:
        """Brings the rows so far to their place: a run that is killed goes on from a checkpoint,
        and the rows before it would be missed for ever."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Writes what is still kept back."""
        if self._writer is not None:
            self._writer.close()
        self._console.close()

    def _row(self, step: int, newest: Mapping[str, float]) -> None:
        sums, self._sums = self._sums, {}
        stages = self._clock.take()
        seconds = sum(stages.values())
        self._seconds += seconds
        busy = stages["step"] + stages["input_wait"]
        steps = sums.pop("steps", 0.0)
        tokens = sums.get("tokens", 0.0)
        row: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "phase": self._config.phase_at(step - 1)[0],
            **_means(sums, steps),
            "learning_rate": newest["learning_rate"],
            "gradient_norm": newest["grad_norm"],
            "skipped_steps": int(newest["skipped"]),
            "real_token_share": tokens / max(sums.get("places", 0.0), 1.0),
            "tokens_per_second": tokens * jax.process_count() / max(busy, 1e-9),
            "seconds": {name: round(value, 4) for name, value in stages.items() if value},
            "goodput": stages["step"] / max(seconds, 1e-9),
            "eta": flops.eta_seconds(
                self._config, step, seconds_per_step=seconds / max(steps, 1.0)
            ),
        }
        if self._config.run.price_per_hour:
            row["cost"] = self._seconds / 3600 * self._config.run.price_per_hour
        self._history.append(row)
        if self._writer is not None:
            self._writer.write(row)
        self._console.progress(progress_line(row, self._config.steps))
        self._diagnose()

    def _diagnose(self) -> None:
        if self._told:
            return
        message = collapse.diagnose(
            list(self._history),
            model=self._config.model,
            warmup_steps=self._config.optimizer.warmup_steps,
            unigram_loss=self._task.reference_loss,
        )
        if message:
            self._told = True
            self._console.say(message)


def _adds_up(name: str) -> bool:
    return name == "loss" or name.endswith(("_loss", "_correct", "_weights"))


def _means(sums: Mapping[str, float], steps: float) -> dict[str, float]:
    """Means over the steps of a window: each loss, and each share of right answers."""
    means = {
        name: value / max(steps, 1.0)
        for name, value in sums.items()
        if name == "loss" or name.endswith("_loss")
    }
    for name, right in sums.items():
        if name.endswith("_correct"):
            asked = sums[name.replace("_correct", "_weights")]
            means[name.replace("_correct", "_accuracy")] = right / asked if asked else 0.0
    if sums.get("mlm_bytes"):
        means["mlm_loss_per_byte"] = means["mlm_loss"] * sums["mlm_pieces"] / sums["mlm_bytes"]
    return means
