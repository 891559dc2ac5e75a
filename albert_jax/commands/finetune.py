"""`albert-jax finetune`: the command that trains a task from labeled examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from albert_jax.commands import options
from albert_jax.commands.options import Fields, File, Run
from albert_jax.finetuning import run_config
from albert_jax.model_io import run_record
from albert_jax.tasks import registry


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a model on labeled examples, or continue the run in --out.

    Every field of the config is an option too; the defaults shown are those of --config and
    --task.
    """

    out: Run
    """Run folder; made if missing, continued if it belongs to this config."""
    config: File | None = None
    """Preset (finetune/sst-2), TOML file, or the folder of a run; by default finetune/default, or
    finetune/scratch without --init."""
    init: Annotated[str | None, tyro.conf.arg(metavar="RUN|DIR")] = None
    """Start from the weights and vocabulary of a run or directory; by default from a small random
    network and a vocabulary of the training texts."""
    task: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help=f"One of {', '.join(registry.names())}.")
    ] = None
    train: File | None = None
    """Training examples; short for --task.train."""
    dev: File | None = None
    """Examples to evaluate on; short for --task.dev."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="A,B,C")] = None
    """Names of a table's columns, with commas between them; short for --task.columns."""
    teacher: Run | None = None
    """Learn from this classifier too; short for --task.teacher."""
    num_layers: int | None = None
    """Depth of the network; by default that of its weights."""
    max_steps: int | None = None
    """End the run after N steps (it is still evaluated)."""
    allow_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD")] = ()
    """Fields (or sections) of the config that may differ from those the run began with."""
    given: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = ()
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> Finetune:
        """The defaults under the config and the task that are named in the arguments."""
        name = options.given(arguments, "--config")
        task = options.given(arguments, "--task") or options.given(arguments, "--task.name")
        out, init = (options.given(arguments, option) for option in ("--out", "--init"))
        init, _ = run_record.starting_point(out or "", init)
        config, given = run_config.defaults(name, init, task)
        given |= {
            word[2:].split("=")[0].replace("-", "_") for word in arguments if word[:2] == "--"
        }
        return cls(
            out=tyro.MISSING, config=name, task=task, given=tuple(sorted(given)), fields=config
        )

    def run(self) -> None:
        """Trains, and returns when the last step is evaluated and saved."""
        columns = None if self.columns is None else options.column_names(self.columns)
        config = run_config.with_files(
            self.fields, train=self.train, dev=self.dev, teacher=self.teacher, columns=columns
        )
        from albert_jax.finetuning import finetune

        finetune.run(
            config,
            self.out,
            init=self.init,
            num_layers=self.num_layers,
            max_steps=self.max_steps,
            allow_change=self.allow_change,
            given=self.given,
        )
