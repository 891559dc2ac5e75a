"""Runs that stop as if a signal had come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from albert_jax.train import loop


def stop_after(step: int, replace: Callable[..., Any] = setattr, *, questions: int = 1) -> None:
    """Lets runs stop when they ask for the first time after a step (from 1), or later.

    Each batch of an evaluation that follows the step is one more question. `replace` sets an
    attribute of a class; a monkeypatch's own undoes it.
    """
    train, done, asked = loop.CompiledSteps.__call__, 0, 0

    def train_step(self: loop.CompiledSteps, state: Any, batch: Any, number: int) -> Any:
        nonlocal done, asked
        done, asked = number + 1, 0
        return train(self, state, batch, number)

    def stops(self: loop.Stop) -> bool:
        nonlocal asked
        asked += 1
        return done == step and asked == questions

    replace(loop.CompiledSteps, "__call__", train_step)
    replace(loop.Stop, "__call__", stops)
