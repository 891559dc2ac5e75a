"""`albert-jax doctor`: the command that looks for problems of this machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import time
from dataclasses import dataclass
from typing import Annotated

import tyro

from albert_jax import configfile, files
from albert_jax.commands.options import Directory, File, check_pretraining
from albert_jax.errors import AlbertError, ConfigError
from albert_jax.observe import environment
from albert_jax.plan.chips import GIB

MIN_FREE_BYTES = 5 * GIB
EARLIEST = 1_750_000_000
"""A clock before this second of 2025 was never set."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at this machine: versions, devices, access and free disk of a folder, clock.

    With --data it also measures whether batches are made as fast as the steps of --config need.
    """

    out: Directory = "."
    """Folder or bucket (gs://...) where a run would be kept."""
    config: File = "tiny"
    """Preset, TOML file, or the folder of a run, for --data."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """Prepared folders whose input rate is measured."""

    def run(self) -> int:
        """Prints the findings; returns 2 if something is not ok."""
        findings = [_versions(), _devices(), *_folder(self.out), _clock()]
        findings += self._input() if self.data else []
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'NOT'} {finding.name:10} {finding.text}")
        failed = sum(not finding.ok for finding in findings)
        print(f"{failed} of {len(findings)} not ok" if failed else f"all {len(findings)} ok")
        return ConfigError.exit_code if failed else 0

    def _input(self) -> list[Finding]:
        """Compares the time of a batch of the data with that of a step of the config."""
        from albert_jax.bench import input as input_rate

        try:
            config = configfile.load(self.config)
            check_pretraining(config, self.config)
            data = dataclasses.replace(config.data, prepared=self.data)
            config = dataclasses.replace(config, data=data)
            config.validate()
            return [Finding("input", ok, text) for ok, text in input_rate.compare(config)]
        except AlbertError as error:
            return [Finding("input", False, str(error))]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


def _versions() -> Finding:
    versions = environment.versions()
    missing = [name for name in environment.PACKAGES if name not in versions]
    text = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    if missing:
        text += f"; missing: {', '.join(missing)} (pip install -e . in the checkout)"
    return Finding("versions", not missing, text)


def _devices() -> Finding:
    from albert_jax.parallel.hosts import available_devices

    try:
        devices = available_devices()
    except ConfigError as error:
        return Finding("devices", False, str(error))
    kinds = {device.device_kind for device in devices}
    text = f"{len(devices)} x {', '.join(sorted(kinds))}, {environment.threads()} processors"
    for node, kind, extra in (("/dev/nvidia0", "GPU", "cuda"), ("/dev/accel0", "TPU", "tpu")):
        if os.path.exists(node) and devices[0].platform == "cpu":
            fix = f"pip install -e '.[{extra}]' in the checkout"
            return Finding("devices", False, f"{text}; a {kind} is there: {fix}")
    return Finding("devices", True, text)


def _folder(out: str) -> list[Finding]:
    # Only a write of our own shows missing rights and exhausted quotas.
    if not files.is_bucket(out):
        out = _existing(out)
    probe = files.join(out, f"doctor-{os.getpid()}")
    try:
        files.write(probe, b"probe")
        same = files.read(probe) == b"probe"
        files.delete(probe)
        access = Finding("rights", same, f"{out}: written, read and deleted")
    except (AlbertError, OSError) as error:
        return [Finding("rights", False, str(error))]
    if files.is_bucket(out):
        return [access]
    free = shutil.disk_usage(out).free
    text = f"{free / GIB:.1f} GiB free in {out}"
    return [access, Finding("disk", free >= MIN_FREE_BYTES, text)]


def _existing(folder: str) -> str:
    """The folder, or the innermost of its parents that exists, in which it would be made."""
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def _clock() -> Finding:
    # The lock of a run folder and signed requests to a bucket rely on the clock.
    now = time.time()
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    return Finding("clock", now > EARLIEST, text)
