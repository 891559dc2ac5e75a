"""Early exit: after each layer the rows whose prediction is confident leave the batch.

No gate is trained. The confidence is the probability of the most probable class, computed from
the states after a layer as if the network ended there. The other rows continue in a smaller
batch, of one of a few sizes, so that few programs are compiled. Where a run was trained at
several depths (phases.depths), rows leave after those only, because the head was never trained
elsewhere.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from albert_jax.errors import ConfigError
from albert_jax.model import albert, attention
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.rows import INPUTS, Batch
from albert_jax.tasks.task import AnyTask

HALVINGS = 3
"""Largest number of times that the size of a batch is halved."""

COMPARED = 4
"""Batches that also run through all layers, to measure what is saved."""

NEVER = 2.0
"""A confidence that no probability reaches."""


@dataclasses.dataclass
class Tally:
    """The layers that were spent, and a comparison with all layers over the first batches."""

    num_layers: list[int] = dataclasses.field(default_factory=list)
    """Layers of each example."""
    batches: int = 0
    """Batches that were compared; the fields below are about their rows."""
    rows: int = 0
    agreeing: int = 0
    """Rows whose label is the one after all layers."""
    exit_seconds: float = 0.0
    full_seconds: float = 0.0


class _WithDepths:
    """A classification task whose outputs are (logits, numbers of layers)."""

    def __init__(self, task: AnyTask) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def for_prediction(self) -> _WithDepths:
        """The same task."""
        return self

    def predict(self, examples: Any, features: Any, outputs: Any) -> list[Any]:
        """The predictions of the task, each with the number of layers that it took."""
        logits, depths = outputs
        predictions = self._task.predict(examples, features, logits)
        return [
            prediction | {"num_layers": int(depth)}
            for prediction, depth in zip(predictions, depths, strict=True)
        ]


class EarlyExit:
    """A classifier that is applied layer by layer and counts the layers it needs."""

    def __init__(self, model: Model, confidence: float, num_layers: int | None = None) -> None:
        """Prepares a model; at most `num_layers` of its layers are applied.

        Raises ConfigError for another task than classification.
        """
        run_config, config = model.run_config, model.config
        settings = run_config.task
        task = None if settings is None else registry.create(settings)
        if task is None or not task.classifies:
            raise ConfigError(
                "--exit-confidence is for classification, not for "
                f"{'models without a task' if task is None else task.name}: leave it out"
            )
        backend = attention.fastest(run_config, jax.local_devices()[0])
        encoder = Encoder(config, run_config.compute, backend)
        self.num_layers = num_layers or config.num_hidden_layers
        trained = {depth for phase in run_config.phases for depth in phase.depths}
        self.exits = trained or set(range(1, self.num_layers))
        """Depths at which a row may leave; the last layer ends all rows."""
        self.task: AnyTask = _WithDepths(task)  # type: ignore[assignment]
        """The task, reading the outputs of this object."""
        self.tally = Tally()
        self._confidence = confidence
        self._params = jax.device_put(model.params)

        def embed(params: Any, batch: Any) -> dict[str, Any]:
            hidden = albert.embed(params, config, batch, compute=run_config.compute)
            return {"hidden": hidden} | {n: batch[n] for n in ("segment_ids", "cls_positions")}

        def advance(params: Any, rows: dict[str, Any], layer: Any) -> tuple[Any, Any]:
            hidden = albert.apply_layer(
                params, config, rows["hidden"], rows["segment_ids"], layer,
                num_layers=num_layers, backend=backend,
            )  # fmt: skip
            logits = task.head_logits(encoder.bind(params), hidden, rows)
            return rows | {"hidden": hidden}, logits

        def take(rows: dict[str, Any], indices: Any) -> dict[str, Any]:
            return {name: column[indices] for name, column in rows.items()}

        self._embed, self._advance, self._take = jax.jit(embed), jax.jit(advance), jax.jit(take)

    def outputs(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [B, C] and numbers of layers int64 [B] of a batch."""
        real = batch["example_weights"] > 0
        columns = {name: batch[name] for name in INPUTS}
        logits, depths = self._run(columns, real, self._confidence)
        self.tally.num_layers += depths[real].tolist()
        if self.tally.batches < COMPARED:
            self._compare(columns, real, logits)
        return logits, depths

    def summary(self) -> str:
        """One line with the mean depth, and time and labels beside those of all layers."""
        tally = self.tally
        return (
            f"{np.mean(tally.num_layers):.2f} of {self.num_layers} layers on average over "
            f"{len(tally.num_layers)} examples; the first {tally.rows}: "
            f"{tally.exit_seconds:.3g} s, with all layers {tally.full_seconds:.3g} s "
            f"and the same label for {tally.agreeing}"
        )

    def _compare(self, columns: Batch, real: np.ndarray, logits: np.ndarray) -> None:
        """Adds a batch to the comparison with all layers, once its programs are compiled."""
        full, _ = self._run(columns, real, NEVER)
        start = time.perf_counter()
        self._run(columns, real, self._confidence)
        middle = time.perf_counter()
        self._run(columns, real, NEVER)
        tally = self.tally
        tally.batches += 1
        tally.rows += int(real.sum())
        tally.agreeing += int(np.sum((full.argmax(-1) == logits.argmax(-1))[real]))
        tally.exit_seconds += middle - start
        tally.full_seconds += time.perf_counter() - middle

    def _run(
        self, columns: Batch, real: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """(logits, numbers of layers) of a batch; rows that are not `real` are undefined."""
        size = len(real)
        rows = self._embed(self._params, columns)
        index, active = np.arange(size), real.copy()
        depths = np.full(size, self.num_layers)
        logits: Any = None
        for layer in range(self.num_layers):
            rows, exit_logits = self._advance(self._params, rows, np.int32(layer))
            last = layer + 1 == self.num_layers
            if not last and layer + 1 not in self.exits:
                continue
            exit_logits = np.asarray(exit_logits)
            if logits is None:
                logits = np.zeros((size, exit_logits.shape[1]), np.float32)
            confident = softmax(exit_logits.astype(np.float64), -1).max(-1) >= confidence
            leaving = active & (last | confident)
            logits[index[leaving]] = exit_logits[leaving]
            depths[index[leaving]] = layer + 1
            active &= ~leaving
            left = np.flatnonzero(active)
            if not len(left):
                break
            smallest = min(size >> k for k in range(HALVINGS + 1) if size >> k >= len(left))
            if smallest < len(index):
                kept = np.resize(left, smallest)  # Padded with rows that are not read again.
                rows = self._take(rows, kept)
                index, active = index[kept], np.arange(smallest) < len(left)
        return logits, depths
