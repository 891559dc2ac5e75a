"""Local folders that appear completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from albert_jax.errors import CheckpointError, ConfigError
from albert_jax.files import is_bucket, storage_error, sync_folder


@contextmanager
def new_folder(out_dir: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `out_dir` that takes its name when the block succeeds.

    Raises:
      ConfigError: `out_dir` is in a bucket.
      CheckpointError: `out_dir` exists already: nothing is ever overwritten.
      StorageError: The folder cannot be written, or the block fails to read a file; the line
        names the path that failed.
    """
    if is_bucket(str(out_dir)):
        raise ConfigError(f"{out_dir}: give a local folder and copy it to the bucket afterwards")
    out = Path(os.path.abspath(out_dir))
    if os.path.lexists(out):
        raise CheckpointError(f"{out_dir} exists already: choose another name or remove it first")
    temporary = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        os.rename(temporary, out)
        sync_folder(str(out.parent))
    except OSError as error:
        raise storage_error(_failed_path(error, temporary, str(out_dir)), error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes small files, by their path, into a folder that is still being made."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _failed_path(error: OSError, temporary: Path, out_dir: str) -> str:
    """The file that an error is about, if it is not one of the folder that is being made."""
    # A write that fails (a full disk) names no file.
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    return path if path and not Path(path).is_relative_to(temporary) else out_dir
