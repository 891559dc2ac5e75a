"""How the processes of a run agree about its folder: through objects and the coordination
service's key-value store, never through a collective (threads beside training may wait here).
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from albert_jax import errors, files
from albert_jax.errors import AlbertError, PeerError, StorageError

_counter = itertools.count()
_TIMEOUT_SECONDS = 1800


def on_first(name: str, work: Callable[[], Any], index: int, count: int) -> Any:
    """Does `work` on process 0 and gives every process its JSON result, or its error.

    All processes call it in the same order.

    Raises:
      AlbertError: what `work` raised on process 0, on every process.
      PeerError: process 0 did not answer.
    """
    if count == 1:
        return work()
    from jax._src import distributed  # the key-value store has no public name in jax 0.10

    client = distributed.global_state.client
    if client is None:
        raise PeerError(f"{count} processes without jax.distributed: initialize it first")
    key = f"albert_jax/{name}/{next(_counter)}"
    if index > 0:
        try:
            answer = json.loads(client.blocking_key_value_get(key, _TIMEOUT_SECONDS * 1000))
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


def wait_for(path: str, timeout_seconds: float) -> None:
    """Waits until an object is there. Raises StorageError if it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while files.read(path) is None:
        if time.monotonic() > deadline:
            raise StorageError(
                f"{path}: process 0 did not write it within {timeout_seconds:.0f} s; "
                "see its last line"
            )
        time.sleep(0.2)
