"""The command line, with a run that stops after step STOP_AT as if a signal had come, and that
takes SLOW seconds for each step.

Run as a program: `python -m tests.parallel.cluster_program pretrain ...`.
"""

from __future__ import annotations

import os
import time

from albert_jax import cli
from albert_jax.train import loop

if __name__ == "__main__":
    if stop_at := int(os.environ.get("STOP_AT", "0")):
        loop.Stop.__call__ = lambda self, step: step == stop_at
    if slow := float(os.environ.get("SLOW", "0")):
        stop = loop.Stop.__call__

        def ask(self: loop.Stop, step: int) -> bool:
            time.sleep(slow)
            return stop(self, step)

        loop.Stop.__call__ = ask
    cli.entry()
