"""The published sizes on TPU slices that are not here: one table, a row as soon as it is known.

    python benchmarks/plan.py [--presets base-v1 ...] [--slices v5e-256 v5p-128 v6e-64]
                              [--fsdp N] [--compute none:scan dots:unroll ...]

Each step is compiled ahead of time (extra tpu-plan; about a minute each, no TPU). Where a preset
does not fit as it is, the next row is the nearest plan that does. `--compute` asks for other
rematerialisation and loops than the preset's, to compare the compiler's estimates.
"""

from __future__ import annotations

import argparse
import dataclasses
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from albert_jax import configfile
from albert_jax.config import Config
from albert_jax.plan import plan, slices
from albert_jax.plan.chips import GIB
from albert_jax.plan.slices import Slice

HEAD = (
    "| preset | slice | chips | rows/chip | remat, loop | GiB of | stored | fits | sent MB (in a "
    "loop) | bound ms | by | hours | chip-hours | estimate ms | MFU at most | compiled s |"
)


def row(name: str, config: Config, where: Slice) -> str:
    """One line of the table, for the first phase."""
    told = plan.plan(config, where)
    phase, limits = told["phases"][0], told["phases"][0]["bound"]
    cycles = phase["cycles"] or {}
    sent = [0, 0]
    for one in phase["collectives"]:
        sent[one["in_loop"]] += one["bytes"]
    loop = "unrolled" if told["unroll"] else "scan"
    accumulation = phase["gradient_accumulation_steps"]
    parts = f" /{accumulation}" if accumulation > 1 else ""
    cells = [
        name, told["slice"], told["chips"], f"{phase['rows_per_chip']:g}{parts}",
        f"{told['remat']}, {loop}", f"{phase['memory'] / GIB:.2f} of {phase['limit'] / GIB:.2f}",
        f"{phase['arguments'] / GIB:.3f}", "yes" if told["fits"] else "no",
        f"{sent[0] / 1e6:.1f} ({sent[1] / 1e6:.1f})", f"{limits['step'] * 1e3:.1f}",
        max(("compute", "memory", "interconnect"), key=lambda limit: limits[limit]),
        f"{told['hours']:.3g}", f"{told['chip_hours']:,.0f}",
        f"{cycles['seconds'] * 1e3:.0f}" if cycles.get("seconds") else "",
        f"{cycles['mfu']:.0%}" if cycles.get("mfu") else "",
        f"{phase['compilation']:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Parses the options and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    sizes = ("base", "large", "xlarge", "xxlarge")
    parser.add_argument("--presets", nargs="+", default=[f"{size}-v2" for size in sizes])
    parser.add_argument("--slices", nargs="+", default=["v5e-256", "v5p-128", "v6e-64"])
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--compute", nargs="+", default=["as it is"], metavar="REMAT:LOOP")
    options = parser.parse_args()
    print(HEAD)
    print("|---" * HEAD.count(" |") + "|", flush=True)
    for where in map(slices.find, options.slices):
        for name in options.presets:
            config = configfile.load(name)
            parallel = dataclasses.replace(config.parallel, fsdp=options.fsdp)
            config = dataclasses.replace(config, parallel=parallel)
            for asked in options.compute:
                if ":" in asked:
                    remat, loop = asked.split(":")
                    compute = dataclasses.replace(
                        config.compute, remat=remat, unroll=loop == "unroll"
                    )
                    config = dataclasses.replace(config, compute=compute)
                line = row(name, config, where)
                print(line, flush=True)
                if "| no |" in line and ":" not in asked:
                    nearest = plan.nearest_that_fits(config, where)
                    if nearest:
                        print(row(name, nearest[1], where), flush=True)


if __name__ == "__main__":
    main()
