"""What a machine has: packages, Python and devices. Nothing but the standard library is needed.

    python benchmarks/accelerator_machine.py

prints the packages of setup.cfg that are missing or of another version, a line each, as pip takes
them. A Python or a jax outside the supported range is one line on stderr and exit code 2: jax and
its plugin for the device are the machine's own.
"""

from __future__ import annotations

import configparser
import operator
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
NOT_NEEDED = {"matplotlib", "pyarrow", "sentencex", "scipy", "fsspec", "tokenizers", "pyyaml"}
"""What is only for pictures, tables, the preparation of text, and foreign files."""
OF_THE_MACHINE = ("jax",)
USED_SHARE = 0.05
"""A device of which others use more memory is busy."""
OLDEST = 8.0
"""Compute capability of the first GPU with bfloat16 (Ampere)."""
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge, "<": operator.lt,
}  # fmt: skip


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "0.10.2+cuda" is (0, 10, 2)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found else ()


def fits(version: str, wanted: str) -> bool:
    """Returns whether a version lies in a range such as ">= 0.10.2, < 0.13"."""
    parts = (re.fullmatch(r"\s*(>=|<)\s*(\S+)\s*", part) for part in wanted.split(","))
    return all(_COMPARE[p[1]](numbers(version), numbers(p[2])) for p in parts if p)


def installed(name: str) -> str | None:
    """The version of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(requirements: list[str], version: Callable[[str], str | None] = installed) -> list[str]:
    """The requirements that the machine does not meet. Raises ValueError, one line, for those that
    it has to meet itself."""
    found = []
    for line in requirements:
        name, wanted = re.fullmatch(r"([\w-]+)\s*(.*)", line.strip()).groups()  # type: ignore[union-attr]
        there = version(name)
        if name in NOT_NEEDED or (there is not None and fits(there, wanted)):
            continue
        if name in OF_THE_MACHINE:
            state = "is missing" if there is None else f"{there} is installed"
            raise ValueError(f"{name} {state}, and {wanted} is needed, with the device's plugin")
        found.append(f"{name}{wanted.replace(' ', '')}")
    return found


def gpu_fault(report: str) -> str | None:
    """Why a GPU cannot be measured, from lines "name, used MiB, total MiB, capability"; or None."""
    for line in report.strip().splitlines():
        name, used, total, capability = (part.strip() for part in line.rsplit(",", 3))
        if float(used) > USED_SHARE * float(total):
            return (
                f"{name} is busy: others use {used} of {total} MiB: wait for them, or name another "
                "in CUDA_VISIBLE_DEVICES"
            )
        if float(capability) < OLDEST:
            return (
                f"{name} is too old: it has compute capability {capability}, and bfloat16 needs "
                f"{OLDEST}"
            )
    return None


def gpu_report() -> str:
    """What nvidia-smi says of the GPUs for `gpu_fault`; "" where there is none."""
    fields = "name,memory.used,memory.total,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def main() -> int:
    """Prints what is missing."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    options = setup["options"]
    if not fits(sys.version, options["python_requires"]):
        here = sys.version.split()[0]
        print(f"Python {here}: {options['python_requires']} is needed: set PYTHON", file=sys.stderr)
        return 2
    try:
        lines = missing([line for line in options["install_requires"].splitlines() if line])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
