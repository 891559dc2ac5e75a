"""The processes of a run: how they find each other, and how each of them leaves.

A process belongs to a cluster when launch/local_processes.py says so in three environment
variables, or when JAX recognizes a Cloud TPU, GKE or SLURM job of more than one process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import jax

from albert_jax import exits
from albert_jax.errors import ConfigError, PeerError, Stopped
from albert_jax.parallel.jax_internals import coordination_client, detect_job, process_index

COORDINATOR, COUNT, INDEX = ("ALBERT_JAX_COORDINATOR", "ALBERT_JAX_PROCESSES", "ALBERT_JAX_PROCESS")
"""Environment variables: HOST:PORT of process 0, number of processes, index of this process."""
LOCAL_SECONDS = 45
"""Time that the processes of an explicit cluster wait for each other to start."""
JOB_SECONDS = 300
"""The same time in a job, whose hosts may still be fetching the program."""
HEARTBEAT_SECONDS = 60
"""After this silence JAX takes a process for dead and aborts the others (exit code 134). Heartbeats
are sent twice in this time, so the abort may come after half of it. The watchdog, which names the
lost process, is faster unless the coordinator died."""
SHUTDOWN_DELAY_SECONDS = 5.0
"""Time that a coordinator with an error stays, so that the others hear of the error."""


def initialize_distributed() -> None:
    """Joins the cluster, if there is one and this process has not joined it yet.

    It must be called before anything touches a device. Raises ConfigError for variables that make
    no cluster and for a machine without devices, and PeerError if the coordinator cannot be
    reached. If not every process comes in time, the process exits at once with code 6, because
    JAX's own answer is an abort.
    """
    if coordination_client() is None:
        _join()
    available_devices()


def _join() -> None:
    values = {name: os.environ.get(name, "") for name in (COORDINATOR, COUNT, INDEX)}
    if any(values.values()):
        address, count, index = values.values()
        host, _, port = address.rpartition(":")
        numbers = (port, count, index)
        if not (host and all(n.isdecimal() for n in numbers) and int(index) < int(count)):
            variables = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise ConfigError(
                f"{variables}: give HOST:PORT of process 0, the number of processes, and a number "
                "below it"
            )
        if int(index):
            _wait_for_coordinator(host, int(port))
        _connect(LOCAL_SECONDS, "deactivate", int(count), int(index), address)
    elif job := detect_job():
        _connect(JOB_SECONDS, *job)


def available_devices() -> list[Any]:
    """All devices of JAX. Raises ConfigError if the platform in JAX_PLATFORMS has none here."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        # JAX 0.10 fails an assertion without a message where the plugin for CUDA is missing.
        reason = (str(error).splitlines() or ["its plugin is not installed or finds no device"])[0]
        platform = os.environ.get("JAX_PLATFORMS", "")
        extra = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}.get(platform)
        install = f"pip install -e '.[{extra}]' in the checkout where there is one, or " * bool(
            extra
        )
        raise ConfigError(
            f"JAX_PLATFORMS={platform}: {reason}: {install}set JAX_PLATFORMS=cpu"
        ) from error


def _shutdown(code: int) -> None:
    """Leaves the cluster: with the others, or after an error without waiting for them.

    JAX's shutdown barrier waits for processes that still work, and after an error they would wait
    in a collective for this one.
    """
    if code in (0, Stopped.exit_code):
        jax.distributed.shutdown()
        return
    if process_index() == 0:
        time.sleep(SHUTDOWN_DELAY_SECONDS)
    os._exit(code)


def _connect(seconds: int, method: str, count: int, index: int, address: str | None = None) -> None:
    """Starts jax.distributed; a job's kind as `method` finds its coordinator by itself."""
    where = f" at {address}" if address else ""

    def give_up() -> None:
        exits.abort(
            f"process {index}: the {count} processes did not all come together{where} "
            f"within {seconds} s: see the last line of those that did not, then start all of them "
            "again"
        )

    # JAX answers a time-out with an abort, which nothing can catch, so ours comes first.
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            address,
            count if address else None,
            index if address else None,
            cluster_detection_method=method,
            initialization_timeout=seconds + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"process {index} cannot join its cluster{where}: {error}") from error
    finally:
        timer.cancel()
    exits.before_exit(_shutdown)


def _wait_for_coordinator(host: str, port: int) -> None:
    """Waits until something listens there; raises PeerError if nothing does in time."""
    deadline = time.monotonic() + LOCAL_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise PeerError(
                    f"coordinator {host}:{port} cannot be reached ({error.strerror or error}): is "
                    "process 0 running, and is its port open between the hosts?"
                ) from error
        time.sleep(0.5)
