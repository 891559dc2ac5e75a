"""`albert-jax finetune`: a task trained from labelled examples."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from albert_jax import configfile
from albert_jax.commands import options
from albert_jax.commands.options import Fields
from albert_jax.config import TaskConfig, TaskName
from albert_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a model on labelled examples, or continue the run in --out.

    Every field of the config can be given too; the defaults shown are those of --config.
    """

    out: Annotated[str, tyro.conf.arg(metavar="RUN")]
    """Run folder; made if missing, continued if it belongs to this config."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Preset (finetune/sst-2), TOML file, or the folder of a run; none: finetune/default, and
    finetune/scratch without --init."""
    init: Annotated[str | None, tyro.conf.arg(metavar="RUN|DIR")] = None
    """Start from the weights and vocabulary of a run or directory; none: a small random network
    and a vocabulary of the training texts."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """classification, regression, choice, squad-v1, squad-v2, tagging, embedding or generation:
    short for --task.name."""
    train: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Training examples: short for --task.train."""
    dev: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Examples to evaluate on: short for --task.dev."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="A,B,C")] = None
    """Names of a table's columns, with commas between: short for --task.columns."""
    teacher: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Learn from this classifier too: short for --task.teacher."""
    num_layers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Depth of the network; none: that of its weights."""
    max_steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """End the run after N steps (it is still evaluated)."""
    allow_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD")] = ()
    """Fields (or sections) of the config that may differ from those the run began with."""
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> Finetune:
        """The defaults under the config that is named in the arguments."""
        name = options.given(arguments, "--config")
        usual = "finetune/default" if options.given(arguments, "--init") else "finetune/scratch"
        config = configfile.load(name or usual)
        if config.task is None:
            config = dataclasses.replace(config, task=TaskConfig())
        return cls(out=tyro.MISSING, config=name, fields=config)

    def run(self) -> None:
        """Trains; returns when the last step is evaluated and saved."""
        task = self.fields.task or TaskConfig()
        given: dict[str, Any] = {"train": self.train, "dev": self.dev, "name": self.task}
        given["teacher"] = self.teacher
        if self.task is not None and self.task not in typing.get_args(TaskName):
            names = typing.get_args(TaskName)
            near = difflib.get_close_matches(self.task, names, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"tasks: {', '.join(names)}"
            raise ConfigError(f"--task {self.task}: unknown task; {hint}")
        if self.columns is not None:
            given["columns"] = options.column_names(self.columns)
        given = {name: value for name, value in given.items() if value is not None}
        config = dataclasses.replace(self.fields, task=dataclasses.replace(task, **given))
        from albert_jax.finetune import finetune

        finetune.run(
            config,
            self.out,
            init=self.init,
            num_layers=self.num_layers,
            max_steps=self.max_steps,
            allow_change=self.allow_change,
        )
