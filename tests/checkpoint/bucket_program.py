"""Pretrains a config file in a run folder and kills itself after a step whose checkpoint is complete.

Run as a program: `python -m tests.checkpoint.bucket_program CONFIG RUN [STEP CHECKPOINT]`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from albert_jax import configfile, files
from albert_jax.train import loop, pretraining

if __name__ == "__main__":
    config, run, *rest = sys.argv[1:]
    if rest:
        last, saved = map(int, rest)

        train = loop.CompiledSteps.__call__

        def kill(self: loop.CompiledSteps, state: Any, batch: Any, step: int) -> Any:
            if step == last:
                deadline = time.monotonic() + 60
                while files.read(files.join(run, "complete", str(saved))) is None:
                    assert time.monotonic() < deadline, "the save was never complete"
                    time.sleep(0.02)
                os.kill(os.getpid(), signal.SIGKILL)
            return train(self, state, batch, step)

        loop.CompiledSteps.__call__ = kill
    pretraining.run(configfile.load(config), run)
