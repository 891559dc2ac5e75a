"""`albert-jax finetune`, `predict` and `score`: the verbs of downstream tasks."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import typing
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax import configfile
from albert_jax.commands import options
from albert_jax.commands.options import Fields, Step, Weights, step_number
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
            given["columns"] = _names(self.columns)
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


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Apply a fine-tuned run to a file, or to a line of text; one JSON object per example.

    A line holds what an example of the task holds, with tabs between its parts.
    """

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder of albert-jax finetune."""
    text: Positional[Annotated[str | None, tyro.conf.arg(metavar="TEXT")]] = None
    """One example, its parts between tabs: a text or two; question and context; context and
    choices; words; source."""
    input: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Examples as for training, without their answers; - reads lines as TEXT from stdin."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Names of the columns, - for one to ignore; none: those of the training, with or without the
    label."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the predictions; none: stdout."""
    rounds: int | None = None
    """Generation: forward passes that fill a canvas; none: task.rounds."""
    temperature: float = 0.0
    """Generation: above 0 words are drawn instead of the likeliest taken."""
    seed: int = 0
    """Generation: decides what is drawn."""
    show_rounds: bool = False
    """Generation: print the canvas after each round on stderr."""
    num_layers: int | None = None
    """Depth; none: the model's own."""
    exit_confidence: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Classification: stop for each text after the pass at which its likeliest label reaches this
    probability."""
    step: Step = "newest"
    """Checkpoint to use."""
    weights: Weights = "trained"
    """The parameters, or their running average."""

    def run(self) -> None:
        """Prints or writes the predictions."""
        if (self.text is None) == (self.input is None):
            raise ConfigError("give one of TEXT and --input FILE")
        if self.temperature and not 1e-4 <= self.temperature <= 1e4:
            raise ConfigError(f"--temperature {self.temperature}: give 0, or 0.0001 to 10000")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed {self.seed}: give a number from 0 to {2**31 - 1}")
        if self.exit_confidence is not None and not 0 < self.exit_confidence <= 1:
            raise ConfigError(
                f"--exit-confidence {self.exit_confidence}: give a probability above 0, such as 0.9"
            )
        from albert_jax.inference import predict as predicting
        from albert_jax.tasks import tables as formats

        lines = self.text
        if self.input == "-":
            lines = formats.decode(sys.stdin.buffer.read(), "stdin")
        told = predicting.predict(
            self.model,
            place=None if lines is not None else self.input,
            lines=lines,
            columns=None if self.columns is None else _names(self.columns),
            rounds=self.rounds,
            temperature=self.temperature,
            seed=self.seed,
            show=(lambda line: print(line, file=sys.stderr)) if self.show_rounds else None,
            num_layers=self.num_layers,
            exit_confidence=self.exit_confidence,
            step=step_number(self.step),
            weights=self.weights,
        )
        predicting.write(told, self.out)


@dataclass(frozen=True, kw_only=True)
class Score:
    """Pseudo-log-likelihood of sentences, without fine-tuning; accuracy on minimal pairs."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder or exported directory, with its masked-language head."""
    file: Positional[Annotated[str, tyro.conf.arg(metavar="FILE")]]
    """Sentences: lines of a .txt, or a table with a column sentence or text. Minimal pairs: a
    table with sentence_good and sentence_bad, and UID for the name of a set."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the scores of all sentences, as JSON lines; none: stdout (not for pairs)."""
    num_layers: int | None = None
    """Depth; none: the model's own."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""

    def run(self) -> None:
        """Prints scores, or a table of accuracies."""
        from albert_jax.inference import predict as predicting
        from albert_jax.inference import scoring
        from albert_jax.model_io import model as loading

        model = loading.load(self.model, step=step_number(self.step), weights=self.weights)
        found, table = scoring.score_file(model, self.file, num_layers=self.num_layers)
        if self.out is not None or not table:
            predicting.write(found, self.out)
        if table:
            print(table)


def _names(columns: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in columns.split(","))
