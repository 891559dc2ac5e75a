"""`albert-jax bench`: the command that measures how fast a config trains on this machine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from albert_jax import configfile
from albert_jax.commands.options import File, check_pretraining, check_within


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast a config trains on the devices of this machine, with random rows."""

    config: File = "tiny"
    """Preset (tiny), TOML file, or the folder of a run."""
    phase: int = 0
    """Number of its phase."""
    batch_size: int | None = None
    """Rows of a step instead of the phase's."""
    length: int | None = None
    """Tokens of a row instead of the phase's."""
    steps: int = 20
    """Number of timed steps."""
    json: bool = False
    """One JSON object instead of a table."""

    def run(self) -> None:
        """Prints to stdout."""
        check_within(1, steps=self.steps)
        from albert_jax.bench import step

        config = configfile.load(self.config)
        check_pretraining(config, self.config)
        config = step.single_phase(config, self.phase, self.batch_size, self.length)
        timing = step.measure(config, self.config, steps=self.steps)
        print(json.dumps(dataclasses.asdict(timing)) if self.json else step.table(timing))
