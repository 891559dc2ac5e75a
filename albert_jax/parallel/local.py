"""Runs one command as several processes of this machine, and never leaves one behind.

    python -m albert_jax.parallel.local N COMMAND ...

The processes find each other by the variables of hosts.py and talk over Gloo. When one dies the
others are ended within 30 s; a process that a signal killed, or that JAX aborted because its
coordinator is gone (exit code 134), becomes exit code 6 and a line that names it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

from albert_jax.errors import PeerError, Stopped

COORDINATOR, COUNT, INDEX = (
    "ALBERT_JAX_COORDINATOR",
    "ALBERT_JAX_PROCESSES",
    "ALBERT_JAX_PROCESS",
)
"""Variables of such a cluster: HOST:PORT of process 0, how many processes, which one."""
PATIENCE_SECONDS = 22.0
"""How long the others may take to notice a death by themselves and to say so."""
NOTICED_SECONDS = 6.0
"""The same once one of them has left because a peer is gone or stuck."""
USAGE = 2


def run(count: int, command: list[str]) -> int:
    """Runs `command` as `count` processes; returns the exit code of the one that decided.

    SIGTERM and SIGINT are passed on, so that the run saves and stops.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, COORDINATOR: address, COUNT: str(count), INDEX: str(index)},
            # A terminal's Ctrl-C would reach them twice, and the second one ends at once.
            start_new_session=True,
        )
        for index in range(count)
    ]
    heard: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        return _watch(processes, heard)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _watch(processes: list[subprocess.Popen[bytes]], heard: list[int]) -> int:
    first: tuple[int, int] | None = None
    deadline = float("inf")
    while None in [process.poll() for process in processes]:
        while heard:
            number = heard.pop(0)
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)
        if first is None:
            first = _first_bad(processes)
            if first is not None:
                noticed = first[1] == PeerError.exit_code
                deadline = time.monotonic() + (NOTICED_SECONDS if noticed else PATIENCE_SECONDS)
        if time.monotonic() > deadline:
            for process in processes:
                if process.poll() is None:
                    process.kill()
            deadline = float("inf")
        time.sleep(0.1)
    first = first or _first_bad(processes)
    if first is None:
        return max(process.returncode for process in processes)
    index, code = first
    if code < 0 or code == 128 + signal.SIGABRT:
        number = -code if code < 0 else signal.SIGABRT
        role = " (the coordinator)" if index == 0 else ""
        print(
            f"process {index}{role} was ended by {signal.Signals(number).name}, the others after "
            "it: start the same command again",
            file=sys.stderr,
            flush=True,
        )
        return PeerError.exit_code
    return code


def _first_bad(processes: list[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """(index, code) of a process that failed; one that a signal killed before any other, and an
    abort, which is JAX's answer to another's death, last."""
    ended = [
        (index, process.returncode)
        for index, process in enumerate(processes)
        if process.returncode not in (None, 0, Stopped.exit_code)
    ]
    return min(ended, key=lambda found: _rank(found[1]), default=None)


def _rank(code: int) -> int:
    if abs(code) in (signal.SIGABRT, 128 + signal.SIGABRT):
        return 2
    return 0 if code < 0 else 1


def main(arguments: list[str]) -> int:
    """Parses `N COMMAND ...`."""
    if len(arguments) < 2 or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        print("usage: python -m albert_jax.parallel.local N COMMAND ...", file=sys.stderr)
        return USAGE
    return run(int(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
