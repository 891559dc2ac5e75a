"""The command line with one end at one stage: `python -m tests.train.exits_program COMMAND ...`.

STAGE and END, two environment variables, name a cell of the matrix in test_exits.py.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from albert_jax import cli
from albert_jax.errors import DataError

SMALL = 3000
"""Bytes of the largest file on a disk that is full."""


def _signal(number: int, times: int) -> None:
    def send() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    # From a thread, because the main one may leave this function with the first signal.
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join()


def _raise(error: Exception) -> None:
    raise error


def _fill_the_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))


def _kill_a_worker() -> None:
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def _kill_the_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(0.3)


def _kill_process_1() -> None:
    if os.environ["ALBERT_JAX_PROCESS"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)


ENDS: dict[str, Callable[[], None]] = {
    "done": lambda: None,
    "our error": lambda: _raise(DataError("an error of ours: a test made it")),
    "foreign exception": lambda: _raise(ZeroDivisionError("a test made it")),
    "SIGTERM": lambda: _signal(signal.SIGTERM, 1),
    "SIGTERM thrice": lambda: _signal(signal.SIGTERM, 3),
    "SIGINT": lambda: _signal(signal.SIGINT, 1),
    "SIGINT twice": lambda: _signal(signal.SIGINT, 2),
    "kill -9": lambda: _signal(signal.SIGKILL, 1),
    "parent gone": _kill_the_parent,
    "disk full": _fill_the_disk,
    "worker gone": _kill_a_worker,
    "peer gone": _kill_process_1,
}


def _before(owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Makes `owner.name` end as END says the first time that `when` is true of its arguments."""
    original, done = getattr(owner, name), []

    def replaced(*arguments: Any, **options: Any) -> Any:
        if not done and when(*arguments):
            done.append(True)
            ENDS[os.environ["END"]]()
        return original(*arguments, **options)

    setattr(owner, name, replaced)


def _prepare(stage: str) -> None:
    if stage == "none":
        return
    if stage == "export":
        from albert_jax.export import huggingface

        _before(huggingface, "write_files", lambda *_: True)  # The temporary folder exists.
        return
    if stage == "serve":
        from albert_jax.serve.server import Server

        _before(Server, "serve_forever", lambda *_: True)
        return
    from albert_jax.checkpoint import manager, manifest
    from albert_jax.train import compiled_steps, loop, pretraining

    if stage == "start":
        _before(pretraining, "set_up", lambda *_: True)
    elif stage == "compile":
        _before(compiled_steps, "make_train_step", lambda *_: True)
    elif stage == "save" and os.environ["END"] == "peer gone":
        _before(manager.Checkpoints, "_finish", lambda *_: True)
    elif stage == "save":  # In the thread that finishes it.
        _before(manifest, "digests", lambda *_: True)
    elif stage == "retention":  # Likewise.
        _before(manifest, "delete", lambda *_: True)
    else:  # "data", "step" and "evaluation" are stages of the watchdog.
        _before(loop.Watchdog, "beat", lambda _, now, step: now == stage and step >= 2)


if __name__ == "__main__":
    _prepare(os.environ["STAGE"])
    cli.entry()
