"""Work items on Apache Beam (extra ``beam``), for corpora that outgrow one machine.

One pipeline a step: the items' numbers are created, spread over the workers, and each worker does
its item as a process of the local pool would. An item writes its own files and its record last,
so nothing passes through the pipeline, an item that Beam does twice does no harm, and the bytes
are those of the pool. All workers must reach the sources and the folder: a shared disk or a bucket.

A runner wraps what a worker raises in traces of its own, each in its own form. So our errors
travel as objects beside the items' records, and the first of them is raised here.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from albert_jax import errors, files
from albert_jax.errors import AlbertError, ConfigError, PeerError


def do(
    runner: Sequence[str],
    function: Callable[..., None],
    items: Sequence[tuple[Any, ...]],
    failures: str,
) -> None:
    """Calls ``function(*item)`` for every item on the workers of a runner, and waits.

    Args:
      runner: name of a Beam runner, then its options as KEY=VALUE.
      function: importable by the workers, or a partial of such a function.
      items: arguments; the first of each is its number.
      failures: folder that the workers reach, for their errors; left as it was found.

    Raises:
      ConfigError: Beam is not installed, or has no such runner or option.
      AlbertError: what the item of the smallest number raised.
      PeerError: the pipeline ended in any other way.
    """
    try:
        import apache_beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise ConfigError(
            "Apache Beam is not installed: pip install 'albert-jax[beam]' into an environment of "
            "its own"
        ) from error
    name, *settings = runner
    usage = io.StringIO()  # Beam's own, two hundred lines of options, and then the reason
    try:
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions([f"--{setting.lstrip('-')}" for setting in settings])
            options.get_all_options()  # They are read here, or in the middle of the work.
        pipeline = apache_beam.Pipeline(runner=name, options=options)
    except SystemExit as error:
        reason = usage.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"Beam runner {name} cannot be used: {reason}") from error
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"Beam runner {name} cannot be used: {_reason(error)}") from error
    files.delete_tree(failures)
    try:
        _ = (
            pipeline
            | "items" >> apache_beam.Create(list(items))
            | "spread" >> apache_beam.Reshuffle()
            | "do" >> apache_beam.Map(functools.partial(_one, function, failures))
        )
        pipeline.run().wait_until_finish()
    except Exception as error:
        raise PeerError(
            f"the Beam pipeline failed ({_reason(error)}): run the same command again; parts that "
            "are whole are not done again"
        ) from error
    found = files.names(failures)
    if found:
        told = json.loads(files.read(files.join(failures, found[0])) or b"{}")
        files.delete_tree(failures)
        kind = getattr(errors, str(told.get("kind")), PeerError)
        raise kind(told.get("message", f"a Beam worker failed on part {found[0]}"))


def _one(function: Callable[..., None], failures: str, item: tuple[Any, ...]) -> None:
    """Does an item on a worker; what is anyone's to mend is written down, the rest is Beam's."""
    try:
        function(*item)
    except AlbertError as error:
        told = {"kind": type(error).__name__, "message": str(error)}
        path = files.join(failures, f"{item[0]:05d}.json")
        try:
            files.write(path, json.dumps(told).encode())
        except AlbertError:  # the disk is full, perhaps
            raise error from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
