"""Doing the items of a step on Apache Beam (extra "beam"), for corpora that outgrow one machine.

Each step is one pipeline, whose workers do items as a process of the local pool would. An item
writes its own files, so nothing passes through the pipeline, and an item that Beam does twice does
no harm. A runner wraps exceptions of workers in traces of its own form, so the messages of our
errors are written to files, and the first of them is raised here.
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


def run(
    runner: Sequence[str],
    function: Callable[..., None],
    items: Sequence[tuple[Any, ...]],
    failures: str,
) -> None:
    """Calls `function(*item)` for every item on the workers of a runner, and waits.

    Args:
      runner: The name of a Beam runner, then its options as KEY=VALUE.
      function: A function that the workers can import, or a partial of one.
      items: The arguments of each call. The first is the item's number.
      failures: A folder that the workers reach, for their errors. It is deleted.

    Raises:
      ConfigError: Beam is not installed, or has no such runner or option.
      AlbertError: The item with the smallest number has raised it.
      PeerError: The pipeline failed in any other way.
    """
    pipeline = _pipeline(runner)
    import apache_beam  # pyright: ignore[reportMissingImports]

    files.delete_tree(failures)
    try:
        _ = (
            pipeline
            | "items" >> apache_beam.Create(list(items))
            | "spread" >> apache_beam.Reshuffle()
            | "do" >> apache_beam.Map(functools.partial(_do_item, function, failures))
        )
        pipeline.run().wait_until_finish()
    except Exception as error:
        raise PeerError(
            f"the Beam pipeline failed ({_reason(error)}): run the same command again; complete "
            "parts are not done again"
        ) from error
    names = files.names(failures)
    if names:
        failure = json.loads(files.read(files.join(failures, names[0])) or b"{}")
        files.delete_tree(failures)
        kind = getattr(errors, str(failure.get("kind")), PeerError)
        raise kind(failure.get("message", f"a Beam worker failed on part {names[0]}"))


def _pipeline(runner: Sequence[str]) -> Any:
    """An empty pipeline on a runner. Raises ConfigError if there is none."""
    try:
        import apache_beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )
    except ImportError as error:
        raise ConfigError(
            "Apache Beam is not installed: pip install -e '.[beam]' in the checkout, into an "
            "environment of its own"
        ) from error
    name, *settings = runner
    usage = io.StringIO()  # Beam prints two hundred lines of options before the reason.
    try:
        with contextlib.redirect_stderr(usage):
            options = PipelineOptions([f"--{setting.lstrip('-')}" for setting in settings])
            options.get_all_options()  # Otherwise it would parse them in the middle of the work.
        return apache_beam.Pipeline(runner=name, options=options)
    except SystemExit as error:
        reason = usage.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"Beam runner {name} cannot be used: {reason}") from error
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"Beam runner {name} cannot be used: {_reason(error)}") from error


def _do_item(function: Callable[..., None], failures: str, item: tuple[Any, ...]) -> None:
    """Does an item on a worker. Errors of the user are written down, others are left to Beam."""
    try:
        function(*item)
    except AlbertError as error:
        failure = {"kind": errors.name_of(error), "message": str(error)}
        path = files.join(failures, f"{item[0]:05d}.json")
        try:
            files.write(path, json.dumps(failure).encode())
        except AlbertError:  # The disk may be full.
            raise error from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
