"""`albert-jax bench` without a command-line library, for machines that have only jax and flax:

python -m albert_jax.bench --config base-v2 --rows 8 --length 128 [--json]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from albert_jax import configfile
from albert_jax.bench import step
from albert_jax.errors import AlbertError
from albert_jax.observe import compilation_cache


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: parses the options with the standard library."""
    parser = argparse.ArgumentParser(
        prog="albert_jax.bench", description="Measure how fast a config trains here."
    )
    parser.add_argument("--config", default="tiny", help="preset, TOML file or run folder")
    parser.add_argument("--phase", type=int, default=0, help="number of its phase")
    parser.add_argument("--rows", type=int, help="rows of a step instead of the phase's")
    parser.add_argument("--length", type=int, help="tokens of a row instead of the phase's")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    given = parser.parse_args(arguments)
    compilation_cache.use()
    try:
        step.run(
            given.config, configfile.load(given.config), phase=given.phase, rows=given.rows,
            length=given.length, steps=given.steps, as_json=given.json,
        )  # fmt: skip
    except AlbertError as error:
        print(f"albert_jax.bench: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
