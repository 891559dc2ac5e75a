"""Runs a program to its end, and looks for what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_MEMORY = Path("/dev/shm")
TEMPORARY = (".orbax-checkpoint-tmp", ".partial-", ".tmp", ".write-test")


@dataclass
class Ended:
    """The remains of a program: its code, output, processes and files."""

    code: int
    out: str
    err: str
    silent_seconds: float
    """From its last output to its end."""
    processes: list[int]
    """Those it has started and that still live."""
    segments: set[str]
    """New shared memory that no living process uses."""

    @property
    def last_line(self) -> str:
        """Of stderr."""
        return (self.err.splitlines() or [""])[-1]


def environment(**more: str) -> dict[str, str]:
    """For `python -m albert_jax` of this checkout in a process of its own."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more}


def run_to_end(
    arguments: Sequence[str],
    folder: Path,
    *,
    module: str = "albert_jax",
    while_running: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    orphan: bool = False,
    limit: float = 240.0,
    **variables: str,
) -> Ended:
    """Runs `python -m MODULE ARGUMENTS`; `orphan` puts a shell in between, which may be killed."""
    marker = uuid.uuid4().hex
    command = [sys.executable, "-m", module, *arguments]
    if orphan:
        command = ["sh", "-c", '"$@" & wait', "sh", *command]
    out, err = folder / f"{marker}.out", folder / f"{marker}.err"
    segments = shared_memory()
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=environment(**variables, ENDS_CELL=marker)
        )
    try:
        while_running(process)
        sizes, last_change, deadline = (0, 0), time.monotonic(), time.monotonic() + limit
        running = True
        while running:
            running = process.poll() is None or (orphan and bool(alive(marker)))
            now = (out.stat().st_size, err.stat().st_size)  # Also once after the end.
            if now != sizes:
                sizes, last_change = now, time.monotonic()
            assert time.monotonic() < deadline, f"no end within {limit:.0f} s: {err.read_text()}"
            time.sleep(0.05)
        silent = time.monotonic() - last_change
    finally:
        process.kill()
        process.wait()
    left = wait_until_gone(marker, segments)
    return Ended(process.returncode, out.read_text(), err.read_text(), silent, *left)


def wait_until_gone(marker: str, before: set[str]) -> tuple[list[int], set[str]]:
    """Living processes with the marker and unused new segments that stay for five seconds."""
    deadline = time.monotonic() + 5.0
    processes, unused = alive(marker), _unused(before)
    while (processes or unused) and time.monotonic() < deadline:
        time.sleep(0.1)
        processes, unused = alive(marker), unused & _unused(before)
    return processes, unused


def shared_memory() -> set[str]:
    """Names of all segments."""
    return set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set()


def alive(marker: str) -> list[int]:
    """Processes that were started with ENDS_CELL=marker and are no zombies."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"ENDS_CELL={marker}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _unused(before: set[str]) -> set[str]:
    """New segments that no process has mapped: other programs of the machine use theirs."""
    new = shared_memory() - before
    if new:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                maps = (folder / "maps").read_text(errors="replace")
            except OSError:
                continue
            new -= {name for name in new if f"{SHARED_MEMORY}/{name}" in maps}
    return new


def temporary_files(folder: Path) -> list[str]:
    """Names below a folder that only an unfinished write has."""
    names = (path.name for path in folder.rglob("*"))
    return sorted(name for name in names if any(part in name for part in TEMPORARY))
