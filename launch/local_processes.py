"""Runs one command as several processes of this machine, and never leaves one of them behind.

    python launch/local_processes.py N COMMAND ...

The processes find each other by three environment variables, which albert_jax/parallel/hosts.py
reads. When one of them dies, the others are ended within 30 s. If a signal killed it, or JAX
aborted it because its coordinator is gone (exit code 134), the exit code is 6 and the last line
names it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

PATIENCE_SECONDS = 22.0
"""How long the others may take to notice a death by themselves and to report it."""
NOTICED_SECONDS = 6.0
"""The same once one of them has exited because a peer is gone or stuck."""
USAGE, PEER_LOST, STOPPED = 2, 6, 75
"""Exit codes of wrong usage, of a lost peer and of a run that a signal stopped."""


def run(count: int, command: list[str]) -> int:
    """Runs `command` as `count` processes and returns the exit code of the decisive one.

    SIGTERM and SIGINT are passed on, so that the run saves and stops.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    cluster = {"ALBERT_JAX_COORDINATOR": address, "ALBERT_JAX_PROCESSES": str(count)}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **cluster, "ALBERT_JAX_PROCESS": str(index)},
            # A terminal's Ctrl-C would reach them twice, and the second one ends at once.
            start_new_session=True,
        )
        for index in range(count)
    ]
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        return _wait(processes, signals)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait(processes: list[subprocess.Popen[bytes]], signals: list[int]) -> int:
    failure: tuple[int, int] | None = None
    deadline = float("inf")
    while running := [process for process in processes if process.poll() is None]:
        while signals:
            number = signals.pop(0)
            for process in running:
                process.send_signal(number)
        if failure is None and (failure := _first_failure(processes)) is not None:
            noticed = failure[1] == PEER_LOST
            deadline = time.monotonic() + (NOTICED_SECONDS if noticed else PATIENCE_SECONDS)
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
            deadline = float("inf")
        time.sleep(0.1)
    failure = failure or _first_failure(processes)
    if failure is None:
        return max(process.returncode for process in processes)
    index, code = failure
    if code >= 0 and code != 128 + signal.SIGABRT:
        return code
    role = " (the coordinator)" if index == 0 else ""
    name = signal.Signals(-code if code < 0 else signal.SIGABRT).name
    print(
        f"process {index}{role} was ended by {name}, the others after it: start the same command "
        "again",
        file=sys.stderr,
        flush=True,
    )
    return PEER_LOST


def _first_failure(processes: list[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """(index, exit code) of a failed process.

    A process that a signal killed comes before any other, and an abort, which is JAX's answer to
    the death of another process, comes last.
    """

    def rank(failure: tuple[int, int]) -> int:
        code = failure[1]
        if abs(code) in (signal.SIGABRT, 128 + signal.SIGABRT):
            return 2
        return 0 if code < 0 else 1

    failures = [
        (index, process.returncode)
        for index, process in enumerate(processes)
        if process.returncode not in (None, 0, STOPPED)
    ]
    return min(failures, key=rank, default=None)


def main(arguments: list[str]) -> int:
    """Parses `N COMMAND ...`."""
    if len(arguments) < 2 or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        print("usage: python launch/local_processes.py N COMMAND ...", file=sys.stderr)
        return USAGE
    return run(int(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
