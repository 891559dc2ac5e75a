"""One run per folder: a lock object that its owner renews, and when a dead one is taken over.

The object ``RUN/lock`` holds host, boot id, pid and a time renewed every 15 s. A second run on
the same host and boot is refused at once while the first one lives, and takes over at once when
it does not; a lock of another host (or of an earlier boot) is taken over when it was not renewed
for 60 s, after a line that says what is being waited for.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any

from albert_jax import files
from albert_jax.errors import AlbertError, CheckpointError

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0

log = logging.getLogger(__name__)


class RunLock:
    """Context manager that holds the lock of a run folder (process 0 of a run takes it).

    Raises (on entering):
      CheckpointError: another run holds the folder; the line names its host and pid.
      StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        renew_seconds: float = RENEW_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._run_dir = run_dir
        self._path = files.join(run_dir, "lock")
        self._renew_seconds = renew_seconds
        self._stale_seconds = stale_seconds
        self._identity = {
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "started": _process_start(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        self._leave = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, Any] | None = None
        self._claim: tuple[bytes | None, float] = (None, 0.0)

    def __enter__(self) -> RunLock:
        while not files.create_if_absent(self._path, self._content()):
            self._wait_for_death()
            if self._take_over():
                break
        self._thread = threading.Thread(target=self._renew, name="run-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join(timeout=self._renew_seconds)
        try:
            if self._holder_token() == self._identity["token"]:
                files.delete(self._path)
        except AlbertError as problem:
            # The run is over; a lock left behind belongs to a dead pid and is taken over.
            log.warning("the lock was left behind: %s", problem)

    def check(self) -> None:
        """Raises CheckpointError if another run has taken the folder over meanwhile."""
        if self._lost.is_set():
            raise CheckpointError(
                f"{self._run_dir}: another run took this folder over while this one was "
                "suspended; nothing more is written here"
            )

    def _content(self) -> bytes:
        return json.dumps({**self._identity, "renewed": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        """What the lock says; None if it is gone; empty if it is being or was half written."""
        data = files.read(self._path)
        if data is None:
            return None
        try:
            holder = json.loads(data)
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}

    def _holder_token(self) -> str | None:
        return (self._holder() or {}).get("token")

    def _wait_for_death(self) -> None:
        """Returns when the lock is stale or gone; raises CheckpointError if its owner lives."""
        holder = self._holder()
        if holder is None:
            return
        here = (self._identity["host"], self._identity["boot"])
        if (holder.get("host"), holder.get("boot")) == here:
            if _alive(int(holder.get("pid", 0)), holder.get("started")):
                raise self._refusal(holder)
            self._seen = holder
            return
        age = max(0.0, time.time() - _renewed(holder))
        if age < self._stale_seconds:
            log.warning(
                "%s is locked by %s, renewed %.0f s ago: waiting up to %.0f s to see if it lives",
                self._run_dir,
                _name(holder),
                age,
                self._stale_seconds - age,
            )
        deadline = time.monotonic() + self._stale_seconds - age
        while time.monotonic() < deadline:
            time.sleep(min(0.5, self._stale_seconds / 20))
            now = self._holder()
            if now is None:
                return
            if now != holder:
                raise self._refusal(now)
        self._seen = holder

    def _take_over(self) -> bool:
        """Replaces the stale lock by ours; False if it changed hands (the caller looks again).

        A bucket has no compare-and-swap, so a claim object, created by exactly one, guards the
        moment between reading the stale lock and writing ours.
        """
        holder = self._holder()
        if holder is None or holder != self._seen:
            return False
        claim = files.join(self._run_dir, "lock.claim")
        if not files.create_if_absent(claim, self._content()):
            time.sleep(min(1.0, self._stale_seconds / 20))
            self._drop_old_claim(claim)
            return False
        try:
            if self._holder() != holder:
                return False
            files.write(self._path, self._content())
        finally:
            files.delete(claim)
        log.warning("%s: took over the lock of %s, which is gone", self._run_dir, _name(holder))
        return True

    def _drop_old_claim(self, claim: str) -> None:
        """Deletes a claim that has stood for too long by our own clock: its owner is dead.

        A power cut may have left it empty, so that what it says cannot be asked.
        """
        content = files.read(claim)
        if content != self._claim[0]:
            self._claim = (content, time.monotonic())
        elif content is not None and time.monotonic() - self._claim[1] > self._stale_seconds:
            files.delete(claim)

    def _refusal(self, holder: dict[str, Any]) -> CheckpointError:
        return CheckpointError(
            f"{self._run_dir}: {_name(holder)} is already running in this folder; "
            "wait for it, stop it, or choose another --out"
        )

    def _renew(self) -> None:
        while not self._leave.wait(self._renew_seconds):
            try:
                if self._holder_token() != self._identity["token"]:
                    # We were suspended for longer than the limit: the folder is no longer ours.
                    self._lost.set()
                    return
                files.write(self._path, self._content())
            except AlbertError as problem:
                log.warning("the lock could not be renewed: %s", problem)


def _name(holder: dict[str, Any]) -> str:
    return f"pid {holder.get('pid', '?')} on host {holder.get('host', '?')}"


def _renewed(holder: dict[str, Any]) -> float:
    """When the lock was renewed (seconds since 1970); now, if it does not say."""
    renewed = holder.get("renewed")
    return float(renewed) if isinstance(renewed, (int, float)) else time.time()


def _boot() -> str:
    """Boot id and pid name space: where both agree, a pid means the same process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Start time of a living process in clock ticks; None if it is dead or has no /proc entry."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int, started: object) -> bool:
    if pid <= 0:
        return False
    if os.path.exists("/proc/self/stat"):
        now = _process_start(pid)
        return now is not None and (started is None or now == started)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
