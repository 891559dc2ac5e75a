"""How the processes of a run agree: through the coordination service's key-value store or objects.

No collective is used, because threads beside training may wait here, and no device is touched.
"""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from albert_jax import errors, files
from albert_jax.errors import AlbertError, ConfigError, PeerError, StorageError
from albert_jax.parallel import hosts
from albert_jax.parallel.jax_internals import coordination_client

AGREE_SECONDS = 300.0
_FIRST_SECONDS = 1800
_counter = itertools.count()


def on_first(name: str, work: Callable[[], Any], index: int, count: int) -> Any:
    """Does `work` on process 0 and gives every process its JSON result, or its error.

    All processes call it in the same order.

    Raises:
      AlbertError: `work` raised it on process 0; it is raised on every process.
      PeerError: process 0 did not answer.
    """
    if count == 1:
        return work()
    client = coordination_client()
    if client is None:
        raise PeerError(f"{count} processes without jax.distributed: initialize it first")
    key = f"albert_jax/{name}/{next(_counter)}"
    if index > 0:
        try:
            answer = json.loads(client.blocking_key_value_get(key, _FIRST_SECONDS * 1000))
        except Exception as error:
            raise PeerError(f"process 0 did not answer ({name}): {error}") from error
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer["result"]
    try:
        result = work()
    except AlbertError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
        client.key_value_set(key, json.dumps(answer))
        raise
    client.key_value_set(key, json.dumps({"result": result}))
    return result


def agree(name: str, facts: Mapping[str, str], *, seconds: float = AGREE_SECONDS) -> None:
    """Compares named facts with those of process 0; every process calls it in the same order.

    Raises, on every process:
      ConfigError: A process differs; the line names it, the fact and both values.
      PeerError: A process did not answer within `seconds`.
    """
    index, count = hosts.join()
    if count == 1:
        return
    client, prefix = coordination_client(), f"albert_jax/agree/{name}"

    def compare() -> None:
        for peer in range(1, count):
            try:
                answer = client.blocking_key_value_get(f"{prefix}/{peer}", int(seconds * 1000))
            except Exception as error:
                raise PeerError(
                    f"process {peer} did not answer within {seconds:.0f} s when {name} was "
                    "compared: see its last line, then start the same command again"
                ) from error
            other = json.loads(answer)
            if line := _difference(facts, other["facts"], f"process {peer} ({other['host']})"):
                raise ConfigError(line)

    if index > 0:
        own = {"host": socket.gethostname(), "facts": dict(facts)}
        client.key_value_set(f"{prefix}/{index}", json.dumps(own))
    on_first(f"agreement on {name}", compare, index, count)


def wait_for(path: str, timeout_seconds: float) -> None:
    """Waits until an object exists. Raises StorageError if it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while files.read(path) is None:
        if time.monotonic() > deadline:
            raise StorageError(
                f"{path}: process 0 did not write it within {timeout_seconds:.0f} s; "
                "see its last line"
            )
        time.sleep(0.2)


def _difference(own: Mapping[str, str], other: Mapping[str, str], who: str) -> str:
    """One line about the first fact in which `who` differs from process 0; empty if none does."""
    different = [key for key in {**own, **other} if own.get(key) != other.get(key)]
    if not different:
        return ""
    key, num_more = different[0], len(different) - 1
    more = f" (and {num_more} more)" if num_more else ""
    return (
        f"{who} has {key} = {other.get(key, 'nothing')}, process 0 has {own.get(key, 'nothing')}"
        f"{more}: start every process with the same command, data and package versions"
    )
