"""Early exit: after each layer the rows whose prediction is confident leave the batch.

No gate is trained. The confidence is the probability of the most probable class, computed from
the states after a layer as if the network ended there. The other rows continue in a smaller
batch, of one of a few sizes, so that few programs are compiled. Where a run was trained at
several depths (phases.depths), rows leave after those only, because the head was never trained
elsewhere.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy.special import softmax

from albert_jax.errors import ConfigError
from albert_jax.model import albert, sharing
from albert_jax.model.albert import FLOAT32
from albert_jax.model.attention import XLA
from albert_jax.model_io.model import Model
from albert_jax.tasks import registry
from albert_jax.tasks.support.encoder import Encoder
from albert_jax.tasks.support.rows import INPUTS, Batch
from albert_jax.tasks.task import AnyTask

HALVINGS = 3
"""Largest number of times that the size of a batch is halved."""


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


def _begins_with(whole: sharing.Sharing, part: sharing.Sharing) -> bool:
    """Returns whether the blocks of one depth use the parameter sets of another one's first."""
    return all(sets[: len(first)] == first for sets, first in zip(whole, part, strict=True))


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
        encoder = Encoder(config, FLOAT32)
        self.num_layers = num_layers or config.num_hidden_layers
        trained = {depth for phase in run_config.phases for depth in phase.depths}
        whole = sharing.table(config, self.num_layers)
        self.exits = {
            depth
            for depth in trained or range(config.num_hidden_groups, self.num_layers)
            if depth < self.num_layers and _begins_with(whole, sharing.table(config, depth))
        }
        """Depths at which a row may leave, where the layers so far are those of a model of this
        depth: with several groups they seldom are. The last layer ends all rows."""
        self.task: AnyTask = _WithDepths(task)  # type: ignore[assignment]
        """The task, reading the outputs of this object."""
        self.layers_used: list[int] = []
        """Layers of each example so far."""
        self._confidence = confidence
        self._params = jax.device_put(model.params)

        def embed(params: Any, batch: Any) -> dict[str, Any]:
            hidden = albert.embed(params, config, batch, compute=FLOAT32)
            return {"hidden": hidden} | {n: batch[n] for n in ("segment_ids", "cls_positions")}

        def advance(params: Any, rows: dict[str, Any], layer: Any) -> tuple[Any, Any]:
            hidden = albert.apply_layer(
                params, config, rows["hidden"], rows["segment_ids"], layer,
                num_layers=num_layers, backend=XLA,
            )  # fmt: skip
            logits = task.head_logits(encoder.bind(params), hidden, rows)
            return rows | {"hidden": hidden}, logits

        def take(rows: dict[str, Any], indices: Any) -> dict[str, Any]:
            return {name: column[indices] for name, column in rows.items()}

        self._embed, self._advance, self._take = jax.jit(embed), jax.jit(advance), jax.jit(take)

    def outputs(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [B, C] and numbers of layers int64 [B]; rows of padding are undefined."""
        real = batch["example_weights"] > 0
        size = len(real)
        rows = self._embed(self._params, {name: batch[name] for name in INPUTS})
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
            confident = softmax(exit_logits.astype(np.float64), -1).max(-1) >= self._confidence
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
        self.layers_used += depths[real].tolist()
        return logits, depths

    def summary(self) -> str:
        """One line with the mean depth of all examples so far."""
        return (
            f"{np.mean(self.layers_used):.2f} of {self.num_layers} layers on average over "
            f"{len(self.layers_used)} examples"
        )
