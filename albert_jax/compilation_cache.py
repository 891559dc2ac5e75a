"""Compiled programs outlive their process, so that a restart or a second run need not wait.

They lie in the user's own cache folder, because whoever can write there can make programs run:
$XDG_CACHE_HOME/albert_jax (~/.cache/albert_jax), or where JAX_COMPILATION_CACHE_DIR says (a
bucket works too). JAX_ENABLE_COMPILATION_CACHE=false turns it off.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from albert_jax import files

FOLDER = "JAX_COMPILATION_CACHE_DIR"
LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
LEAST_SECONDS = "0.02"
"""Shortest time of a compilation whose program is kept, in seconds.

A start compiles dozens of small programs, such as the check of each shape in a checkpoint, which
take half a second together.
"""


def use() -> None:
    """Turns JAX's persistent cache on, here and in processes that are started from here.

    To be called before jax is imported, which reads these variables then; what the user set
    stays. Does nothing where there is no folder to write to: it is a convenience.
    """
    if not os.environ.get(FOLDER):
        folder = default_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK):
            return
        os.environ[FOLDER] = str(folder)
    os.environ.setdefault(LEAST, LEAST_SECONDS)


def default_folder() -> Path:
    """The folder for programs of this kind of processor.

    Machine code for one processor may be illegal on another, JAX's key does not tell them apart,
    and home folders are shared between machines: so their names differ.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return Path(files.cache_folder(f"{platform.machine() or 'any'}-{digest}"))
