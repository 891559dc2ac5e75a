"""Shared by all tests: CPU only, compiled programs kept, folders of reference data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reference import NO_GOLDEN, NO_SHARED, golden_folder, shared_folder

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests train the same micro model, and compiling it is nearly all of their time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# A shell starts background jobs with SIGINT ignored, which the programs of the tests would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of shared data (ALBERT_JAX_SHARED); the test is skipped without it."""
    folder = shared_folder()
    if folder is None:
        pytest.skip(NO_SHARED)
    assert folder.is_dir(), f"ALBERT_JAX_SHARED: {folder} is not a folder"
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the original program (ALBERT_JAX_GOLDEN); the test is skipped without them."""
    folder = golden_folder()
    if folder is None:
        pytest.skip(NO_GOLDEN)
    assert folder.is_dir(), f"{folder} is not a folder"
    return folder


@pytest.fixture
def albert(tmp_path: Path):
    """Runs `albert-jax ARGUMENTS` in a process of its own; returns the completed process."""

    def run(*arguments: str, cwd: Path = tmp_path, **options) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "albert_jax", *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=options.pop("timeout", 300),
            **options,
        )

    return run
