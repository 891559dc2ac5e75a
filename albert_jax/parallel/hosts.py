"""The processes of a run: how they find each other, and how each of them leaves.

A process belongs to a cluster when launch/local_processes.py says so in three environment
variables, or when JAX recognizes a Cloud TPU, GKE or SLURM job of more than one process.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Any, NamedTuple

import jax

from albert_jax.errors import ConfigError, PeerError
from albert_jax.parallel.jax_internals import detect_cluster

COORDINATOR, COUNT, INDEX = ("ALBERT_JAX_COORDINATOR", "ALBERT_JAX_PROCESSES", "ALBERT_JAX_PROCESS")
"""Environment variables: HOST:PORT of process 0, number of processes, index of this process."""
LOCAL_SECONDS = 45
"""How long the processes of an explicit cluster wait for each other to start."""
JOB_SECONDS = 300
"""The same in a job, whose hosts may still be fetching the program."""
HEARTBEAT_SECONDS = 60
"""After this silence JAX takes a process for dead and aborts the others (exit code 134). Heartbeats
come every half of it, so the abort may come half of it after a death: later than the watchdog,
which names the process, except when the process is the coordinator."""
GOODBYE_SECONDS = 5.0
"""How long a coordinator with an error stays, so that the others hear of it before it is gone."""


class _Membership(NamedTuple):
    """The place of this process in a cluster; `job` is None for the environment variables."""

    job: str | None
    coordinator: str
    count: int
    index: int


_joined: _Membership | None = None


def join() -> tuple[int, int]:
    """Joins the cluster, if there is one; returns (index of this process, number of processes).

    It must be called before anything touches a device; later calls only repeat the answer.

    Raises ConfigError for variables that make no cluster, and PeerError if the coordinator cannot
    be reached. If not every process comes in time, the process exits at once with code 6, because
    JAX's own answer is an abort.
    """
    global _joined
    if _joined is None:
        member = _from_environment()
        if member is None and (job := detect_cluster(("slurm", "gcetpu", "gketpu"))):
            member = _Membership(job[0], "", *job[1:])
        if member is None:
            return 0, 1
        _connect(member)
        _joined = member
    return _joined.index, _joined.count


def leave(code: int) -> None:
    """Ends a process of a cluster after its last line. Does nothing without a cluster.

    Python's own exit would wait in JAX's shutdown barrier for processes that still work, and they
    would wait in a collective for this one.
    """
    if _joined is None:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    if _joined.index == 0:
        time.sleep(GOODBYE_SECONDS)
    os._exit(code)


def _from_environment() -> _Membership | None:
    values = {name: os.environ.get(name, "") for name in (COORDINATOR, COUNT, INDEX)}
    if not any(values.values()):
        return None
    address, _, port = values[COORDINATOR].rpartition(":")
    numbers = (port, values[COUNT], values[INDEX])
    if not (address and all(n.isdecimal() for n in numbers) and int(numbers[2]) < int(numbers[1])):
        variables = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(
            f"{variables}: give HOST:PORT of process 0, the number of processes, and a number "
            "below it"
        )
    return _Membership(None, values[COORDINATOR], int(numbers[1]), int(numbers[2]))


def _connect(member: _Membership) -> None:
    seconds = LOCAL_SECONDS if member.job is None else JOB_SECONDS
    if member.job is None and member.index:
        _wait_for_coordinator(member.coordinator, seconds)
    where = f" at {member.coordinator}" if member.coordinator else ""

    def give_up() -> None:
        line = (
            f"albert-jax: process {member.index}: the {member.count} processes did not all come "
            f"together{where} within {seconds} s: see the last line of those that did not, then "
            "start all of them again\n"
        )
        os.write(2, line.encode())
        os._exit(PeerError.exit_code)

    # JAX answers a time-out with an abort, which nothing can catch, so ours comes first.
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    options: dict[str, Any] = {
        "initialization_timeout": seconds + 60,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if member.job is None:
        options |= {
            "coordinator_address": member.coordinator,
            "num_processes": member.count,
            "process_id": member.index,
        }
    try:
        jax.distributed.initialize(cluster_detection_method=member.job or "deactivate", **options)
    except (RuntimeError, ValueError) as error:
        raise PeerError(
            f"process {member.index} cannot join its cluster{where}: {error}"
        ) from error
    finally:
        timer.cancel()


def _wait_for_coordinator(address: str, seconds: float) -> None:
    """Waits until something listens at HOST:PORT; raises PeerError if nothing does in time."""
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerError(
                    f"coordinator {address} cannot be reached ({error.strerror or error}): is "
                    "process 0 running, and is its port open between the hosts?"
                ) from error
        time.sleep(0.5)
