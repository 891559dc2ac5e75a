"""`albert-jax verify`: the command that reads everything a folder holds, and changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.errors import CheckpointError, ConfigError, one_line


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every digest, number and record of runs, prepared folders and exported directories.

    Nothing is written. The exit code is 0 if all is well, and 4 if anything is damaged.
    """

    paths: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH")]]
    """Runs, prepared folders, exported directories."""

    def run(self) -> None:
        """Prints a table for each path. Raises CheckpointError if anything is damaged, ConfigError
        without a path."""
        from albert_jax import verify

        if not self.paths:
            raise ConfigError("no PATH: name a run, a prepared folder or an exported directory")
        kinds = {path: verify.kind_of(path) for path in self.paths}
        wrong: list[str] = []
        for path, kind in kinds.items():
            begin, total, count = time.monotonic(), 0, 0
            print(f"{path} ({kind})")
            for check in verify.verify(path):
                verdict = "ok" if check.ok else "DAMAGED"
                print(
                    f"  {verdict:7}  {one_line(check.name):24}  {one_line(check.found)}", flush=True
                )
                total, count = total + check.size, count + 1
                wrong += [] if check.ok else [f"{path}, {check.name}"]
            seconds = max(time.monotonic() - begin, 1e-9)
            speed = f"{total / 1e9:.3f} GB in {seconds:.1f} s, {total / seconds / 1e9:.2f} GB/s"
            print(f"  {count} checks, {speed}")
        if wrong:
            raise CheckpointError(f"{len(wrong)} checks failed, the first: {wrong[0]} (see above)")
