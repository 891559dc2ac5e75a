"""What the one loop trains is a value: start weights, batches, a loss, and numbers on the host.

Pretraining is the first task (train/pretraining.py), fine-tuning tasks are others; none of them
has a loop, a step or a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from albert_jax.objectives.loss_terms import Loss

Batch = dict[str, np.ndarray]
Params = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """The present parameters as a task may use them on whole batches, dropout off; given to it
    by the loop, which alone knows devices."""

    sums: Callable[[Batch], dict[str, float]]
    """Sums of the task's evaluation_loss (train/step.py names them)."""
    outputs: Callable[[Batch], Any]
    """The task's outputs as numpy arrays, one entry per row."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Everything the loop must know about what it trains."""

    name: str
    """For messages and the record."""
    abstract_params: Params
    """Shapes of the parameters, as a nested dict."""
    initial_params: Callable[[], Params]
    """Start weights: nested numpy arrays, float32; called only if nothing is restored."""
    batches: Callable[[int, int, np.ndarray], Iterator[Batch]]
    """(phase, first step within the phase, row numbers of the global batch that are wanted) to
    those rows of one batch per step, to the end of the phase. A pure function of its arguments."""
    loss: Loss
    """Sums per term and the names of their weights (objectives/loss_terms.py)."""
    evaluation_loss: Loss
    """The same with the sums that `evaluate` wants."""
    evaluate: Callable[[int, Network], dict[str, float]]
    """(phase, network) to named numbers of the held-out rows in that phase's shape."""
    count: Callable[[Batch], dict[str, float]]
    """Counts over rows on the host: "tokens" (real ones), "places", and what the losses are
    divided by in the record ("mlm_pieces", "mlm_bytes")."""
    reference_loss: float | None = None
    """Loss in nats of a model that knows frequencies only, to tell a collapsed run in words."""
    best: str | None = None
    """The named number that marks the best checkpoint (of the last phase)."""
    best_mode: Literal["min", "max"] = "min"
    """Whether its smallest or its largest value does."""
    outputs: Callable[[Params, Any], Any] | None = None
    """(parameters, batch) to arrays, one entry per row, that `evaluate` asks for; None: none."""
