"""Early exit: after each pass the rows whose head is sure leave the batch.

No gate is learnt. How sure the head is, is the probability of its likeliest class, from the
states after a pass as if the network ended there. Rows that are not yet sure go on in a smaller
batch, of one of a few sizes, so that few programs are compiled. Where a run has trained at
several depths (phases.depths), rows leave after those only: elsewhere the head was never asked.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from albert_jax.errors import ConfigError
from albert_jax.model_io.model import Model
from albert_jax.tasks.families import Family
from albert_jax.tasks.losses import INPUTS, Forward
from albert_jax.tasks.old_features import Batch
from albert_jax.tasks.old_registry import task as registered
from albert_jax.tasks.sentence_tasks import probabilities

HALVINGS = 3
"""How often a batch may be halved on its way."""

COMPARED = 4
"""Batches that are taken through all passes too, to tell what was saved."""

NEVER = 2.0
"""No probability is as large."""


@dataclasses.dataclass
class Tally:
    """What was spent; seconds without compilation."""

    num_layers: list[int] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    batches: int = 0
    """Batches that were compared with all passes; what follows is about them."""
    rows: int = 0
    same: int = 0
    """Rows with the label of all passes."""
    exit_seconds: float = 0.0
    whole_seconds: float = 0.0


class EarlyExit:
    """A classifier that is applied pass by pass and counts what it spends."""

    def __init__(self, model: Model, confidence: float, num_layers: int | None = None) -> None:
        """`confidence` is the probability that is sure enough, `passes` the most passes.

        Raises ConfigError for another task than classification.
        """
        import jax

        from albert_jax.model import albert, attention
        from albert_jax.tasks import heads

        run_config, config = model.run_config, model.config
        task = run_config.task
        if task is None or task.name != "classification":
            raise ConfigError(
                "--exit-confidence is for classification, not for "
                f"{'models without a task' if task is None else task.name}: leave it out"
            )
        backend = attention.fastest(run_config, jax.local_devices()[0])
        forward = Forward(config, run_config.compute, backend, task.pooling)
        self.num_layers = num_layers or config.num_hidden_layers
        trained = {depth for phase in run_config.phases for depth in phase.depths}
        self.exits = trained or set(range(1, self.num_layers))
        """Passes after which a row may leave; all that are left leave after the last."""
        self.tally = Tally()
        self._confidence = confidence
        self._params = jax.device_put(model.params)
        self._family = registered(task.name).family
        self._compiled: dict[Any, Any] = {}
        self._compiling = 0.0

        def begin(params: Any, batch: Any) -> dict[str, Any]:
            hidden = albert.embed(params, config, batch, compute=run_config.compute)
            read = {name: batch[name] for name in ("segment_ids", "cls_positions")}
            return {"hidden": hidden, **read}

        def advance(params: Any, rows: dict[str, Any], layer: Any) -> tuple[Any, Any]:
            hidden = albert.apply_layer(
                params, config, rows["hidden"], rows["segment_ids"], layer,
                num_layers=num_layers, backend=backend,
            )  # fmt: skip
            logits = heads.classify(params["head"], forward.pool(params, hidden, rows))
            return rows | {"hidden": hidden}, logits

        def take(rows: dict[str, Any], places: Any) -> dict[str, Any]:
            return {name: column[places] for name, column in rows.items()}

        self._programs = {f.__name__: jax.jit(f) for f in (begin, advance, take)}

    @property
    def family(self) -> Family:
        """Classification of these outputs; each prediction tells its number of passes."""

        def predict(
            examples: Sequence[Any], features: Sequence[Any], outputs: Any, *rest: Any
        ) -> list[Any]:
            logits, taken = outputs
            found = self._family.predict(examples, features, logits, *rest)
            return [one | {"passes": int(n)} for one, n in zip(found, taken, strict=True)]

        return dataclasses.replace(self._family, predict=predict)

    def outputs(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits float32 [rows, C] and passes int64 [rows] of a batch."""
        real = batch["example_weights"] > 0
        columns = {name: batch[name] for name in INPUTS}
        logits, taken, seconds = self._run(columns, real, self._confidence)
        tally = self.tally
        tally.num_layers += taken[real].tolist()
        tally.seconds += seconds
        if tally.batches < COMPARED:
            whole, _, whole_seconds = self._run(columns, real, NEVER)
            tally.batches += 1
            tally.rows += int(real.sum())
            tally.same += int(np.sum((whole.argmax(-1) == logits.argmax(-1))[real]))
            tally.exit_seconds += seconds
            tally.whole_seconds += whole_seconds
        return logits, taken

    def summary(self) -> str:
        """Mean passes, and time and labels beside those of all passes, in one line."""
        tally = self.tally
        return (
            f"{np.mean(tally.num_layers):.2f} of {self.num_layers} passes on average over "
            f"{len(tally.num_layers)} examples in {tally.seconds:.3g} s; the first {tally.rows}: "
            f"{tally.exit_seconds:.3g} s, with all passes {tally.whole_seconds:.3g} s "
            f"and the same label for {tally.same}"
        )

    def _run(
        self, columns: Batch, real: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(logits, passes, seconds) of a batch; rows that are not `real` may hold anything."""
        begun, compiled = time.perf_counter(), self._compiling
        size = len(real)
        rows = self._call("begin", self._params, columns)
        number, waiting = np.arange(size), real.copy()
        taken = np.full(size, self.num_layers)
        logits: Any = None
        for layer in range(self.num_layers):
            rows, found = self._call("advance", self._params, rows, np.int32(layer))
            last = layer + 1 == self.num_layers
            if not last and layer + 1 not in self.exits:
                continue
            found = np.asarray(found)
            logits = np.zeros((size, found.shape[1]), np.float32) if logits is None else logits
            leaving = waiting & (last | (probabilities(found).max(-1) >= confidence))
            logits[number[leaving]] = found[leaving]
            taken[number[leaving]] = layer + 1
            waiting &= ~leaving
            left = np.flatnonzero(waiting)
            if not len(left):
                break
            fitting = min(size >> k for k in range(HALVINGS + 1) if size >> k >= len(left))
            if fitting < len(number):
                places = np.resize(left, fitting)  # Filled up with rows that are not read again.
                rows = self._call("take", rows, places)
                number, waiting = number[places], np.arange(fitting) < len(left)
        return logits, taken, time.perf_counter() - begun - (self._compiling - compiled)

    def _call(self, name: str, *arguments: Any) -> Any:
        """A program's result; one that is met for the first time is compiled off the clock."""
        import jax

        key = (name, *(np.shape(leaf) for leaf in jax.tree.leaves(arguments[-2:])))
        if key not in self._compiled:
            jax.block_until_ready(arguments)
            begun = time.perf_counter()
            self._compiled[key] = self._programs[name].lower(*arguments).compile()
            self._compiling += time.perf_counter() - begun
        return self._compiled[key](*arguments)
