"""The bytes that each preset sends between four TPU v5e chips in a step, by its compiled program.

    python -m tests.plan.golden_collectives [NAME ...]

writes collectives.json beside this file anew (given names: those entries only). It needs libtpu
(extra tpu-plan) and about a minute for each entry; no TPU.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from albert_jax import configfile
from albert_jax.model.init import num_parameters
from albert_jax.plan import compile, hlo, slices

FILE = Path(__file__).with_name("collectives.json")
SLICE = "v5e-4"
ROWS_PER_CHIP = 4
"""What is sent does not depend on the rows; few of them compile in less time."""
NAMES = (
    "tiny", "base-v2", "large-v2", "xlarge-v2", "xxlarge-v2", "tiny fsdp", "xxlarge-v2 fsdp",
)  # fmt: skip
"""Presets (version 1 has the same graph up to dropout); "fsdp": parameters shared out to all."""


def compiled(name: str) -> dict[str, Any]:
    """The entry of a name: parameters, and the collectives of one step of its last phase."""
    preset, _, fsdp = name.partition(" ")
    config, where = configfile.load(preset), slices.find(SLICE)
    phase = dataclasses.replace(config.phases[-1], batch_size=ROWS_PER_CHIP * where.chips)
    parallel = dataclasses.replace(config.parallel, fsdp=where.chips if fsdp else 1)
    config = dataclasses.replace(config, phases=(phase,), parallel=parallel)
    if fsdp:  # Muon, as `tiny` has it, gathers every matrix once more.
        optimizer = dataclasses.replace(config.optimizer, name="lamb")
        config = dataclasses.replace(config, optimizer=optimizer)
    found = compile.compile_phase(config, phase, where)
    assert found.fits, f"{name} does not fit on {SLICE}"
    return {
        "slice": SLICE,
        "parameters": num_parameters(config.model),
        "collectives": hlo.grouped(found.collectives),
    }


def main(names: list[str]) -> None:
    """Compiles and writes."""
    entries = json.loads(FILE.read_text()) if names and FILE.exists() else {}
    for name in names or NAMES:
        entries[name] = compiled(name)
        print(name, json.dumps(entries[name]), flush=True)
        ordered = {known: entries[known] for known in NAMES if known in entries}
        FILE.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
