"""The value that the one loop trains: initial weights, batches, losses, and scores on the host.

Pretraining is one such task (train/pretraining.py), fine-tuning tasks are others; none of them
has a loop, a step or a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from albert_jax.objectives.loss_terms import Loss

Batch = dict[str, np.ndarray]
Params = dict[str, Any]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the current parameters on full batches with dropout off.

    It is built by the loop, so tasks never touch devices.
    """

    sums: Callable[[Batch], dict[str, float]]
    """The sums of the task's evaluation_loss, with the names of `make_eval_step`."""
    outputs: Callable[[Batch], Any]
    """The task's outputs as numpy arrays, one entry per row."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """Everything that the loop must know about what it trains. Phases are given by number."""

    name: str
    """Name for messages and the record."""
    abstract_params: Params
    """Shapes of the parameters, as a nested dict."""
    initial_params: Callable[[], Params]
    """Makes the initial weights, nested float32 numpy arrays; called if nothing is restored."""
    batches: Callable[[int, int, np.ndarray], Iterator[Batch]]
    """(phase, first step within the phase, numbers of the wanted rows of the global batch) to
    those rows of one batch per step until the end of the phase: a pure function."""
    loss: Callable[[int], Loss]
    """The loss of a phase."""
    evaluation_loss: Callable[[int], Loss]
    """The loss of a phase with the sums that `evaluate` needs."""
    evaluate: Callable[[int, Evaluator], dict[str, float]]
    """(phase, evaluator) to named scores of the held-out rows in that phase's shape."""
    count: Callable[[Batch], dict[str, float]]
    """Counts over rows on the host: "tokens" (real ones), "positions", and the divisors of losses
    in the record ("mlm_tokens", "mlm_bytes")."""
    attention: str = ""
    """Name of the attention backend, for the line at the start of a run."""
    summary: Callable[[int], str] = lambda phase: ""
    """The training and evaluation data of a phase, for the same line."""
    left_out_documents: int = 0
    """Documents of damaged records, which the record of metrics counts."""
    reference_loss: float | None = None
    """Loss in nats of a model that knows frequencies only, for the diagnosis of a collapsed run."""
    best: str | None = None
    """The score that selects the best checkpoint (of the last phase)."""
    best_mode: Literal["min", "max"] = "min"
    """"min" if the smallest value of that score is the best, "max" if the largest is."""
    milestones: Mapping[int, dict[str, float]] = field(default_factory=dict)
    """Steps that are saved and kept for good, with numbers that their checkpoints keep."""
    outputs: Callable[[Params, Any], Any] | None = None
    """(parameters, batch) to arrays with one entry per row, for Evaluator.outputs."""
