"""`albert-jax serve`: a local web page to try models on."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, step_number
from albert_jax.errors import ConfigError
from albert_jax.model_io.model import ParamsKind


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Open a local web page to try masks, tasks and generation and to look at attention.

    It listens on this machine's loopback only; Ctrl-C ends it.
    """

    models: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN|DIR")]]
    """Runs (pretrained or fine-tuned) and exported directories."""
    port: int = 8000
    """Port; 0 takes a free one."""
    step: Step = "newest"
    """Checkpoint of the runs."""
    weights: ParamsKind | None = None
    """The parameters of the runs, or their running average (the default where there is one)."""

    def run(self) -> None:
        """Prints the address and serves until it is interrupted."""
        if not self.models:
            raise ConfigError("no model: name at least one RUN or DIR")
        from albert_jax.model_io.model import load
        from albert_jax.model_io.run_record import is_run
        from albert_jax.serve.answers import Answers
        from albert_jax.serve.forms import short_names
        from albert_jax.serve.server import Server

        step, names = step_number(self.step), short_names(self.models)
        # The options are those of the runs; if there is none, `load` refuses them.
        chosen = {path for path in names if is_run(path)} or names.keys()
        models = {
            name: load(path, step=step, weights=self.weights) if path in chosen else load(path)
            for path, name in names.items()
        }
        with Server(Answers(models), self.port) as server:
            print(f"{server.address} (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
