#!/usr/bin/env python3
"""Fills launch/jobset.yaml and prints it: a pretraining on TPU slices of GKE.

    python3 launch/jobset.py --name base --slice v5e-16 --image IMAGE -- PRETRAIN OPTIONS \
        | kubectl apply -f -

Needs nothing but Python. Every value is written as JSON, which YAML reads: no quoting to think of.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from string import Template

ACCELERATORS = {"v5e": "tpu-v5-lite-podslice", "v6e": "tpu-v6e-slice", "7x": "tpu7x"}
FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
CUBE = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
TOPOLOGIES = {"v5e": FLAT, "v6e": FLAT, "7x": CUBE}
"""Chips of a slice -> its topology."""


def slice_shape(name: str) -> tuple[str, str, int, int]:
    """(accelerator, topology, hosts, chips per host) of a slice such as "v6e-16" (16 chips).

    v5e and v6e have one host up to eight chips; all other slices have four chips per host.

    Raises ValueError for a slice that is not in the table.
    """
    generation, _, count = name.partition("-")
    table = TOPOLOGIES.get(generation, {})
    chips = int(count) if count.isdecimal() else 0
    if chips not in table:
        sizes = "; ".join(f"{g}-{'|'.join(map(str, t))}" for g, t in TOPOLOGIES.items())
        raise ValueError(f"--slice {name}: give a number of chips of {sizes}")
    per_host = chips if chips <= (4 if table is CUBE else 8) else 4
    return ACCELERATORS[generation], table[chips], chips // per_host, per_host


def render(options: argparse.Namespace, template: str) -> str:
    """The manifest.

    Raises ValueError for a value that the cluster would refuse.
    """
    accelerator, topology, hosts, chips = slice_shape(options.slice)
    if options.slices < 1 or (options.slices > 1 and hosts == 1):
        raise ValueError(f"--slices {options.slices}: several slices need several hosts each")
    # Job and Pod names are made of it and end at 63 characters.
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", options.name):
        raise ValueError(f"--name {options.name}: up to 40 of a-z, 0-9 and hyphens")
    arguments = ["pretrain", *options.pretrain]
    if options.slices > 1:
        arguments += ["--parallel.slice", str(options.slices)]
    selector = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    # Kubernetes would replace $(NAME) in arguments.
    arguments = [argument.replace("$(", "$$(") for argument in arguments]
    values = {
        "name": options.name,
        "labels": {"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {},
        "slices": options.slices,
        "hosts": hosts,
        "chips": chips,
        "node_selector": selector,
        "image": options.image,
        "arguments": arguments,
    }
    # The head comment explains the template and speaks of a ${name}.
    body = template[template.index("apiVersion:") :]
    return Template(body).substitute({key: json.dumps(value) for key, value in values.items()})


def main(argv: list[str] | None = None) -> int:
    """Prints the manifest; 2 for a wrong value."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True, help="of the JobSet")
    parser.add_argument("--slice", required=True, help="generation and chips: v5e-16, v6e-8, 7x-64")
    parser.add_argument("--slices", type=int, default=1, help="how many of them as one job")
    parser.add_argument("--image", required=True, help="built from launch/Dockerfile for tpu")
    parser.add_argument("--queue", help="local queue of Kueue")
    parser.add_argument("--spot", action="store_true", help="on Spot nodes")
    parser.add_argument("pretrain", nargs="+", help="options of albert-jax pretrain, after --")
    options = parser.parse_args(argv)
    try:
        print(render(options, Path(__file__).with_name("jobset.yaml").read_text()), end="")
    except ValueError as error:
        print(f"jobset.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
