"""The processes of a run: how they find each other, and that they are about the same work.

A process belongs to a cluster when launch/local.sh --processes says so (three variables), or when
JAX recognises a Cloud TPU, GKE or SLURM job of more than one process. All that is exchanged here
goes through the coordination service's key-value store: no device is touched.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from albert_jax.errors import ConfigError, PeerError
from albert_jax.parallel.local import COORDINATOR, COUNT, INDEX

LOCAL_SECONDS = 45
"""How long the processes of an explicit cluster wait for each other to start."""
JOB_SECONDS = 300
"""The same in a job, whose hosts may still be fetching the program."""
HEARTBEAT_SECONDS = 60
"""After this silence JAX takes a process for dead and aborts the others (exit code 134). A process
is heard of every half of it, so the abort may come half of it after a death: later than the
watchdog, which names the process, except when it is the coordinator that is gone."""
GOODBYE_SECONDS = 5.0
"""How long a coordinator with an error stays, so that the others hear of it before it is gone."""

_KINDS = ("slurm", "gcetpu", "gketpu")


@dataclass(frozen=True)
class _Place:
    """Where this process stands: `kind` is None for the three variables, else JAX's name."""

    kind: str | None
    coordinator: str
    count: int
    index: int


_joined: _Place | None = None


def join() -> tuple[int, int]:
    """Joins the cluster, if there is one; returns (index of this process, number of processes).

    Call it before anything touches a device; later calls only repeat the answer.

    Raises ConfigError (variables that make no cluster) and PeerError (the coordinator cannot be
    reached, or not everyone came in time; the latter leaves at once with exit code 6, because
    JAX's own answer is an abort).
    """
    global _joined
    if _joined is None:
        place = _explicit() or _detected()
        if place is None:
            return 0, 1
        _connect(place)
        _joined = place
    return _joined.index, _joined.count


def agree(name: str, facts: Mapping[str, str], *, seconds: float = JOB_SECONDS) -> None:
    """Compares named facts with those of process 0; every process calls it in the same order.

    Raises ConfigError on every process if one of them differs (the line names it, the fact and
    both values), PeerError if a process does not answer within `seconds`.
    """
    if _joined is None:
        return
    client, here = _client(), _joined.index
    prefix, wait = f"albert_jax/agree/{name}", int(seconds * 1000)
    try:
        if here == 0:
            line = ""
            for peer in range(1, _joined.count):
                here = peer  # who is waited for, should it not answer
                told = json.loads(client.blocking_key_value_get(f"{prefix}/{peer}", wait))
                line = line or difference(facts, told["facts"], f"process {peer} ({told['host']})")
            client.key_value_set(f"{prefix}/verdict", line or "same")
        else:
            mine = {"host": socket.gethostname(), "facts": dict(facts)}
            client.key_value_set(f"{prefix}/{here}", json.dumps(mine))
            here = 0
            line = client.blocking_key_value_get(f"{prefix}/verdict", wait)
            line = "" if line == "same" else line
    except Exception as error:
        raise PeerError(
            f"process {here} did not answer within {seconds:.0f} s when {name} was compared: "
            "see its last line, then start the same command again"
        ) from error
    if line:
        raise ConfigError(line)


def difference(mine: Mapping[str, str], other: Mapping[str, str], who: str) -> str:
    """One line about the first fact in which `who` differs from process 0; empty if none."""
    found = [key for key in [*mine, *other] if mine.get(key) != other.get(key)]
    if not found:
        return ""
    key, more = found[0], len(set(found)) - 1
    values = [str(facts.get(key, "nothing")) for facts in (other, mine)]
    also = f" (and {more} more)" if more else ""
    return (
        f"{who} has {key} = {values[0]}, process 0 has {values[1]}{also}: start every process "
        "with the same command, data and package versions"
    )


def leave(code: int) -> None:
    """Ends a process of a cluster after its last line; does nothing without a cluster.

    Python's own end would wait in JAX's shutdown barrier for processes that still work, and they
    in a collective for this one.
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


def _explicit() -> _Place | None:
    values = {name: os.environ.get(name, "") for name in (COORDINATOR, COUNT, INDEX)}
    if not any(values.values()):
        return None
    address, port = values[COORDINATOR].rpartition(":")[::2]
    numbers = (port, values[COUNT], values[INDEX])
    if not (address and all(n.isdecimal() for n in numbers) and int(numbers[2]) < int(numbers[1])):
        told = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ConfigError(
            f"{told}: give HOST:PORT of process 0, the number of processes, and a number below it"
        )
    return _Place(None, values[COORDINATOR], int(numbers[1]), int(numbers[2]))


def _detected() -> _Place | None:
    """The cluster that JAX recognises around this process, if it has several processes."""
    from jax._src.clusters import ClusterEnv  # no public name in jax 0.10

    on_cpu = getattr(jax.config, "jax_platforms", None) == "cpu"
    for kind in ClusterEnv._cluster_types:
        if kind.name not in _KINDS or (on_cpu and kind.name != "slurm"):
            continue
        try:
            if not kind.is_env_present() or kind.get_process_count() < 2:
                continue
            return _Place(kind.name, "", kind.get_process_count(), kind.get_process_id())
        except Exception:  # noqa: BLE001  # a notebook's TPU has no metadata server: alone
            continue
    return None


def _connect(place: _Place) -> None:
    seconds = LOCAL_SECONDS if place.kind is None else JOB_SECONDS
    if place.kind is None and place.index:
        _reach(place.coordinator, seconds)
    where = f" at {place.coordinator}" if place.coordinator else ""

    def give_up() -> None:
        line = (
            f"albert-jax: process {place.index}: the {place.count} processes did not all come "
            f"together{where} within {seconds} s: see the last line of those that did not, then "
            "start all of them again\n"
        )
        os.write(2, line.encode())
        os._exit(PeerError.exit_code)

    # JAX answers a time-out with an abort, which nothing can catch: ours comes first.
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    options: dict[str, Any] = {
        "initialization_timeout": seconds + 60,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    if place.kind is None:
        options |= {
            "coordinator_address": place.coordinator,
            "num_processes": place.count,
            "process_id": place.index,
        }
    try:
        jax.distributed.initialize(cluster_detection_method=place.kind or "deactivate", **options)
    except (RuntimeError, ValueError) as error:
        raise PeerError(f"process {place.index} cannot join its cluster{where}: {error}") from error
    finally:
        timer.cancel()


def _reach(address: str, seconds: float) -> None:
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


def _client() -> Any:
    from jax._src import distributed  # the key-value store has no public name in jax 0.10

    return distributed.global_state.client
