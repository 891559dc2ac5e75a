"""One run per folder: a lock object that its owner renews and that a later run may take over.

The object ``RUN/lock`` holds host, boot id, pid and a time that is renewed every 15 s. A second
run on the same host and boot is refused at once while the first one lives, and takes over at once
when it does not. The lock of another host (or of an earlier boot) is taken over when it was not
renewed for 60 s, after a line that says whom the run waits for.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from typing import Any

from albert_jax import files
from albert_jax.errors import AlbertError, CheckpointError

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 0.5
"""Time after a takeover in which another run that takes over too would replace our lock."""
_TYPES = {
    "host": (str,), "boot": (str,), "pid": (int,), "started": (str,), "token": (str,),
    "renewed": (int, float),
}  # fmt: skip
"""Types of the entries of a lock."""

log = logging.getLogger(__name__)


class RunLock:
    """Context manager that holds the lock of a run folder (process 0 of a run takes it).

    Entering raises CheckpointError if another run holds the folder, naming its host and pid, and
    StorageError if the folder cannot be written.
    """

    def __init__(self, run_dir: str) -> None:
        self._run_dir, self._path = run_dir, files.join(run_dir, "lock")
        self._owner = {
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._closing, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="run-lock", daemon=True)

    def __enter__(self) -> RunLock:
        taken_over = False
        while not files.create_if_absent(self._path, self._content()):
            data = files.read(self._path)
            if data is None:
                continue
            self._wait_until_stale(data)
            if files.read(self._path) == data:
                files.delete(self._path)
                taken_over = True
                owner = _describe(_parse(data))
                log.warning("%s: took over the lock of %s, which is gone", self._run_dir, owner)
        if taken_over:
            # Two runs may have found the same stale lock: the one that deleted last keeps it.
            time.sleep(SETTLE_SECONDS)
            if not self._is_ours():
                raise self._refusal(_parse(files.read(self._path)))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=RENEW_SECONDS)
        try:
            if self._is_ours():
                files.delete(self._path)
        except AlbertError as error:
            # The run is over, and the lock of a dead pid is taken over.
            log.warning("the lock was left behind: %s", error)

    def check(self) -> None:
        """Raises CheckpointError if another run has taken the folder over meanwhile."""
        if self._lost.is_set():
            raise CheckpointError(
                f"{self._run_dir}: another run took this folder over while this one was "
                "suspended; nothing more is written here"
            )

    def _content(self) -> bytes:
        return json.dumps({**self._owner, "renewed": time.time()}).encode()

    def _is_ours(self) -> bool:
        return _parse(files.read(self._path)).get("token") == self._owner["token"]

    def _wait_until_stale(self, data: bytes) -> None:
        """Returns once the lock with this content is stale or gone; refuses a living owner."""
        owner = _parse(data)
        if self._owner["boot"] and all(owner.get(k) == self._owner[k] for k in ("host", "boot")):
            # The start time differs if the pid now belongs to another process.
            started = _process_start(owner["pid"]) if "pid" in owner else None
            if started is not None and started == owner.get("started"):
                raise self._refusal(owner)
            if "pid" in owner:
                return
        remaining = STALE_SECONDS - max(0.0, time.time() - owner.get("renewed", time.time()))
        # The other host's clock may be wrong, so its file is watched for a renewal in any case.
        remaining = max(remaining, min(STALE_SECONDS, 1.5 * RENEW_SECONDS))
        wait = f"waiting up to {remaining:.0f} s to see if it lives"
        log.warning("%s is locked by %s: %s", self._run_dir, _describe(owner), wait)
        deadline = time.monotonic() + remaining
        while time.monotonic() < deadline:
            time.sleep(min(0.5, STALE_SECONDS / 20))
            current = files.read(self._path)
            if current is None:
                return
            if current != data:
                raise self._refusal(_parse(current))

    def _refusal(self, owner: dict[str, Any]) -> CheckpointError:
        return CheckpointError(
            f"{self._run_dir}: {_describe(owner)} is already running in this folder; "
            "wait for it, stop it, or choose another --out"
        )

    def _renew(self) -> None:
        while not self._closing.wait(RENEW_SECONDS):
            try:
                if not self._is_ours():
                    # This process was suspended for longer than the limit.
                    self._lost.set()
                    return
                files.write(self._path, self._content())
            except AlbertError as error:
                log.warning("the lock could not be renewed: %s", error)


def _parse(data: bytes | None) -> dict[str, Any]:
    """The entries of a lock that have their type; none if it is absent, half written or damaged.

    A lock without an owner that can be asked for is stale when it is not renewed.
    """
    try:
        content = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    entries = content.items() if isinstance(content, dict) else ()
    return {name: value for name, value in entries if type(value) in _TYPES.get(name, ())}


def _describe(owner: dict[str, Any]) -> str:
    return f"pid {owner.get('pid', '?')} on host {owner.get('host', '?')}"


def _boot() -> str:
    """Boot id and pid namespace: where both agree, a pid means the same process.

    It is empty on systems without /proc, where only the time of the last renewal counts.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks; None if it is dead or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
