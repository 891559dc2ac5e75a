"""What about this machine could spoil a run: one line per finding, ok or not."""

from __future__ import annotations

import email.utils
import os
import platform
import time
import urllib.request
from dataclasses import dataclass

from albert_jax import files
from albert_jax.errors import AlbertError
from albert_jax.observe import environment
from albert_jax.plan.chips import GIB

LEAST_FREE = 5 * GIB
MOST_SKEW_SECONDS = 30.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


def look(out: str = ".", *, clock_url: str | None = None) -> list[Finding]:
    """Devices, versions, room in the folder `out` (or rights in a bucket), and the clock.

    `clock_url` is a page whose Date header the clock is compared with; None: only looked at for
    being possible.
    """
    return [_versions(), _devices(), *_folder(out), _clock(clock_url)]


def table(findings: list[Finding]) -> str:
    """The findings as lines; the last line tells how many are not ok."""
    lines = [f"{'ok ' if f.ok else 'NOT'} {f.name:10} {f.text}" for f in findings]
    bad = sum(not finding.ok for finding in findings)
    lines.append(f"{bad} of {len(findings)} not ok" if bad else f"all {len(findings)} ok")
    return "\n".join(lines)


def _versions() -> Finding:
    found = environment.versions()
    missing = [name for name in environment.PACKAGES if name not in found]
    text = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {version}" for name, version in found.items()
    )
    if missing:
        text += f"; missing: {', '.join(missing)} (pip install albert-jax)"
    return Finding("versions", not missing, text)


def _devices() -> Finding:
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        return Finding("devices", False, f"{str(error).splitlines()[0]} (JAX_PLATFORMS=cpu works)")
    kinds = {device.device_kind for device in devices}
    text = f"{len(devices)} x {', '.join(sorted(kinds))}, {environment.threads()} processors"
    if os.path.exists("/dev/nvidia0") and devices[0].platform == "cpu":
        return Finding("devices", False, f"{text}; a GPU is there: install jax[cuda12]")
    if os.path.exists("/dev/accel0") and devices[0].platform == "cpu":
        return Finding("devices", False, f"{text}; a TPU is there: install jax[tpu]")
    return Finding("devices", True, text)


def _folder(out: str) -> list[Finding]:
    # A probe of our own, because rights and full quotas show themselves only at a write.
    probe = files.join(out, f"doctor-{os.getpid()}")
    try:
        files.write(probe, b"probe")
        same = files.read(probe) == b"probe"
        files.delete(probe)
        found = [Finding("rights", same, f"{out}: written, read and deleted")]
    except (AlbertError, OSError) as error:
        return [Finding("rights", False, str(error))]
    free = files.free_bytes(out)
    if free is None:
        return found
    text = f"{free / GIB:.1f} GiB free in {os.path.abspath(out)}"
    return [*found, Finding("disk", free >= LEAST_FREE, text)]


def _clock(url: str | None) -> Finding:
    now = time.time()
    if url is None:
        # The lock of a run folder and signed requests to a bucket rely on it.
        sane = now > 1_750_000_000
        return Finding("clock", sane, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            there = email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (OSError, TypeError, ValueError) as error:
        return Finding("clock", False, f"{url}: {error}")
    skew = time.time() - there
    return Finding("clock", abs(skew) <= MOST_SKEW_SECONDS, f"{skew:+.0f} s against {url}")
