"""The command line, with a run that stops after step STOP_AT as if a signal had come, and that
takes SLOW seconds for each step.

Run as a program: `python -m tests.parallel.cluster_program pretrain ...`.
"""

from __future__ import annotations

import os
import time
from typing import Any

from albert_jax import cli
from albert_jax.train import loop
from tests.stopping import stop_after

if __name__ == "__main__":
    if stop_at := int(os.environ.get("STOP_AT", "0")):
        stop_after(stop_at)
    if slow := float(os.environ.get("SLOW", "0")):
        train = loop.CompiledSteps.__call__

        def step(self: loop.CompiledSteps, state: Any, batch: Any, number: int) -> Any:
            time.sleep(slow)
            return train(self, state, batch, number)

        loop.CompiledSteps.__call__ = step
    cli.entry()
