"""Turns the metrics of steps into rows of metrics.jsonl, a progress line, and a diagnosis."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import jax

from albert_jax.config import Config
from albert_jax.model import flops
from albert_jax.observe import collapse
from albert_jax.observe.clock import Clock
from albert_jax.observe.console import Console, progress_line
from albert_jax.observe.metrics import MetricsWriter
from albert_jax.optim import schedule
from albert_jax.train.task import Batch, TrainingTask


class Report:
    """Reads each step's metrics one step late, so that logging never stalls the device.

    Only process 0 has a writer. The others read the metrics all the same, because every
    process must decide alike whether to end a run.
    """

    def __init__(
        self,
        config: Config,
        task: TrainingTask,
        clock: Clock,
        console: Console,
        writer: MetricsWriter | None,
    ) -> None:
        self._config, self._task, self._clock = config, task, clock
        self._console, self._writer = console, writer
        self._pending: tuple[int, Mapping[str, Any], dict[str, float]] | None = None
        self._sums: dict[str, float] = {}
        self._seconds = 0.0
        self._recent_rows: deque[dict[str, Any]] = deque(maxlen=collapse.WINDOW)
        self._collapsed = False
        self.constants: dict[str, int] = {}
        """Numbers that stand in every row."""
        self.newest_step = 0
        """The newest step whose metrics were read."""
        self.skipped_in_a_row = 0
        """Skipped steps in a row, up to `newest_step`."""

    def state(self) -> dict[str, Any]:
        """Plain JSON for a checkpoint, with which the rows after a restart are the same as those
        of a run that was never interrupted."""
        # The checkpoint is written while the next steps are booked, so it needs a copy.
        stages = {name: seconds for name, seconds in self._clock.peek().items() if seconds}
        return {"sums": dict(self._sums), "seconds": self._seconds, "stages": stages}

    def restore(self, state: Mapping[str, Any]) -> float:
        """Continues from `state`; returns the seconds of the row that was begun there."""
        self._sums, self._seconds = dict(state["sums"]), float(state["seconds"])
        for name, seconds in state["stages"].items():
            self._clock.add(name, seconds)
        return sum(state["stages"].values())

    def step(
        self, step: int, metrics: Mapping[str, Any], batch: Batch, *, compiled: bool = False
    ) -> None:
        """Takes the metrics of step number `step` (from 1) and reads those of the step before.

        `batch` holds the rows of this process, whose counts stand for the rows of all processes.
        `compiled` says that the clock books this step as compilation.
        """
        self.flush()
        counts = self._task.count(batch)
        batch_size = self._config.phases[self._config.phase_at(step - 1)[0]].batch_size
        tokens = counts["tokens"] * batch_size / len(batch["input_ids"])
        counts["timed_tokens"] = 0.0 if compiled else tokens
        self._pending = (step, metrics, counts)

    def flush(self) -> None:
        """Waits for the newest step and adds its metrics to the row."""
        if self._pending is None:
            return
        step, metrics, counts = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        self.newest_step = step
        self.skipped_in_a_row = int(values["skipped_in_a_row"])
        added = {"all_steps": 1.0, "timed_tokens": counts.pop("timed_tokens")}
        if self.skipped_in_a_row:
            self._console.say(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: "
                "not finite, the update is skipped"
            )
        else:
            kinds = ("loss", "_correct", "_weights")
            added |= {name: value for name, value in values.items() if name.endswith(kinds)}
            for name in [name for name in added if name.endswith("_loss")]:
                if values.get(name.removesuffix("loss") + "weights") == 0:
                    del added[name]  # The step had nothing to predict.
                else:
                    added[f"{name}_steps"] = 1.0
            added |= {"steps": 1.0} | counts
        for name, value in added.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self._config.run.logging_steps == 0 or step == self._config.steps:
            self._write_row(step, values)

    def evaluation(self, step: int, phase: int, scores: Mapping[str, float]) -> None:
        """Records the named scores of an evaluation."""
        self._write({"kind": "evaluation", "step": step, "phase": phase, **scores})
        shown = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items()]
        self._console.say(f"step {step} held out: {'  '.join(shown)}")

    def close(self) -> None:
        """Writes the rows that are still buffered."""
        if self._writer is not None:
            self._writer.flush()
        self._console.close()

    def _write(self, row: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(row)

    def _write_row(self, step: int, newest: Mapping[str, float]) -> None:
        config = self._config
        sums, self._sums = self._sums, {}
        stages = self._clock.take()
        seconds = sum(stages.values())
        self._seconds += seconds
        steps = max(sums.get("steps", 0.0), 1.0)
        row: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "phase": config.phase_at(step - 1)[0],
            **_means(sums, steps),
            "learning_rate": newest["learning_rate"],
            "grad_norm": newest["grad_norm"],
            "skipped_steps": int(newest["skipped"]),
            "real_token_share": sums.get("tokens", 0.0) / max(sums.get("positions", 0.0), 1.0),
            "tokens_per_second": sums["timed_tokens"]
            / max(stages["step"] + stages["input_wait"], 1e-9),
            "seconds": {name: round(value, 4) for name, value in stages.items() if value},
            "goodput": stages["step"] / max(seconds, 1e-9),
            "eta": eta_seconds(config, step, seconds_per_step=seconds / sums["all_steps"]),
        }
        if config.run.price_per_hour:
            row["cost"] = self._seconds / 3600 * config.run.price_per_hour
        row |= self.constants
        self._write(row)
        self._console.progress(progress_line(row, config.steps))
        self._recent_rows.append(row)
        if self._task.reference_loss is None or self._collapsed:
            return
        message = collapse.diagnose(
            list(self._recent_rows),
            model=config.model,
            warmup_steps=schedule.warmup_steps(config),
            unigram_loss=self._task.reference_loss,
        )
        if message:
            self._collapsed = True
            self._console.say(message)


def eta_seconds(config: Config, step: int, *, seconds_per_step: float) -> float:
    """Seconds that the run still needs after `step` if its FLOPs per second stay the same.

    The last steps up to `step` took `seconds_per_step` each, evaluations and checkpoints included.
    """
    remaining, end = 0.0, 0
    for phase in config.phases:
        end += phase.steps
        remaining += min(phase.steps, max(0, end - step)) * flops.per_step(config.model, phase)
    current = config.phases[config.phase_at(step - 1)[0]]
    return remaining / flops.per_step(config.model, current) * seconds_per_step


def _means(sums: Mapping[str, float], steps: float) -> dict[str, float]:
    """The mean losses over the steps of a row that had them, and the accuracies."""
    losses = {name: value for name, value in sums.items() if name.endswith("loss")}
    means = {name: value / sums.get(f"{name}_steps", steps) for name, value in losses.items()}
    for name, correct in sums.items():
        term = name.removesuffix("_correct")
        if term != name and f"{term}_weights" in sums:
            weights = sums[f"{term}_weights"]
            means[f"{term}_accuracy"] = correct / weights if weights else 0.0
    if sums.get("mlm_bytes"):
        means["mlm_loss_per_byte"] = means["mlm_loss"] * sums["mlm_tokens"] / sums["mlm_bytes"]
    return means
