"""Agreement of the processes of a run through the coordination service's key-value store.

No collective is used, because threads beside training may wait here, and no device is touched.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from albert_jax import errors
from albert_jax.errors import AlbertError, ConfigError, PeerError
from albert_jax.parallel.jax_internals import coordination_client, process_count, process_index

AGREE_SECONDS = 300.0
"""Time that a process has to tell its facts."""
_RESULT_SECONDS = 1800.0
"""Time that the other processes wait for the work of process 0."""
_counter = itertools.count()


def new_key(name: str) -> str:
    """A new key of the store. All processes call it in the same order and get the same key."""
    return f"albert_jax/{name}/{next(_counter)}"


def on_process_0(name: str, work: Callable[[], Any], key: str | None = None) -> Any:
    """Does `work` on process 0 and gives every process its JSON result, or its error.

    All processes call it in the same order. Threads, which cannot keep a common order, give a key
    that was made in order.

    Raises:
      AlbertError: `work` raised it on process 0; it is raised on every process.
      PeerError: process 0 did not answer.
    """
    index, count = process_index(), process_count()
    if count == 1:
        return work()
    key = key or new_key(name)
    if index > 0:
        answer = _receive(key, 0, _RESULT_SECONDS)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer["result"]
    try:
        result = work()
    except AlbertError as error:
        _publish(key, {"error": errors.name_of(error), "message": str(error)})
        raise
    _publish(key, {"result": result})
    return result


def agree(name: str, facts: Mapping[str, str], *, seconds: float = AGREE_SECONDS) -> None:
    """Compares named facts with those of process 0; every process calls it in the same order.

    Raises, on every process:
      ConfigError: A process differs; the line names it, the fact and both values.
      PeerError: A process did not answer within `seconds`.
    """
    index, count = process_index(), process_count()
    prefix = new_key(f"agree/{name}")

    def compare() -> None:
        for peer in range(1, count):
            other = _receive(f"{prefix}/{peer}", peer, seconds)
            if line := _difference(facts, other["facts"], f"process {peer} ({other['host']})"):
                raise ConfigError(line)

    if index > 0:
        _publish(f"{prefix}/{index}", {"host": socket.gethostname(), "facts": dict(facts)})
    on_process_0(f"agreement on {name}", compare)


def _publish(key: str, value: Any) -> None:
    """Gives the other processes a JSON value under a key that is used once."""
    coordination_client().key_value_set(key, json.dumps(value))


def _receive(key: str, sender: int, seconds: float) -> Any:
    """Waits for the value of process `sender`. Raises PeerError if it does not come."""
    try:
        return json.loads(coordination_client().blocking_key_value_get(key, int(seconds * 1000)))
    except Exception as error:
        raise PeerError(
            f"process {sender} did not answer within {seconds:.0f} s ({key}): see its last line"
        ) from error


def _difference(own: Mapping[str, str], other: Mapping[str, str], who: str) -> str:
    """One line about the first fact in which `who` differs from process 0; empty if none does."""
    different = [key for key in {**own, **other} if own.get(key) != other.get(key)]
    if not different:
        return ""
    key, more = different[0], f" (and {len(different) - 1} more)" if different[1:] else ""
    return (
        f"{who} has {key} = {other.get(key, 'nothing')}, process 0 has {own.get(key, 'nothing')}"
        f"{more}: start every process with the same command, data and package versions"
    )
