"""Options that several commands share, and those that are looked up before the others."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.errors import ConfigError, DataError
from albert_jax.model_io.model import ParamsKind

if TYPE_CHECKING:
    from albert_jax.data.sources.tables import Record
    from albert_jax.model_io.model import Model

Fields = Annotated[Config, tyro.conf.arg(name="")]
"""Every field of a config as an option."""
File = Annotated[str, tyro.conf.arg(metavar="FILE")]
OptionalFile = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
Directory = Annotated[str, tyro.conf.arg(metavar="DIR")]
Run = Annotated[str, tyro.conf.arg(metavar="RUN")]
Step = Annotated[str, tyro.conf.arg(metavar="newest|best|N")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of the commands that load a model."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder or exported directory."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: ParamsKind | None = None
    """The parameters, or their running average (the default where a run keeps one)."""

    def load(self) -> Model:
        """Loads the model. Raises ConfigError and CheckpointError."""
        from albert_jax.model_io import model

        return model.load(self.model, step=step_number(self.step), weights=self.weights)


@dataclass(frozen=True, kw_only=True)
class DepthOptions(ModelOptions):
    """The options of the commands that apply a model at one depth."""

    num_layers: int | None = None
    """Depth; the default is the model's own."""

    def load(self) -> Model:
        """Loads the model. Raises ConfigError for a depth that it does not have."""
        from albert_jax.model.sharing import check_depth

        model = super().load()
        if self.num_layers is not None:
            check_depth(model.config, self.num_layers)
        return model


@dataclass(frozen=True, kw_only=True)
class SentenceOptions:
    """The options of the commands that read sentences."""

    texts: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")]] = ()
    """Texts."""
    input: OptionalFile = None
    """Lines of a .txt, or a table with a column sentence or text; - reads lines from stdin."""

    def sentences(self) -> tuple[list[str], list[str]]:
        """The texts, and the place of each. Raises ConfigError and DataError."""
        if bool(self.texts) == (self.input is not None):
            raise ConfigError("give either TEXT or --input FILE (- reads lines from stdin)")
        if self.input is None:
            return list(self.texts), [f"text {i}" for i in range(1, len(self.texts) + 1)]
        return sentences(sentence_records(self.input))


def sentence_records(path: str) -> list[Record]:
    """The lines of a .txt or of stdin (-), blank ones too, or the records of a table."""
    from albert_jax.data.sources import tables

    if path != "-" and not path.endswith(".txt"):
        return tables.read_records(path)
    place = "stdin" if path == "-" else path
    text = tables.decode(sys.stdin.buffer.read(), place) if path == "-" else tables.read_text(path)
    if not text.strip():
        raise DataError(f"{place}: no sentences: give one per line")
    return [
        tables.Record(f"{place}:{number}", {"sentence": line.strip()})
        for number, line in enumerate(text.rstrip("\r\n").split("\n"), start=1)
    ]


def sentences(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """The text in the column sentence or text of each record, and the place of each."""
    from albert_jax.data.sources import tables

    columns = records[0].fields
    column = "text" if "text" in columns and "sentence" not in columns else "sentence"
    texts = [tables.field(record, column) for record in records]
    for text, record in zip(texts, records, strict=True):
        if not isinstance(text, str | int | float):
            raise DataError(f"{record.where}: {column} is {text!r}, not a text: fix the record")
    return [str(text).strip() for text in texts], [record.where for record in records]


def log(line: str) -> None:
    """Prints a line of progress."""
    print(line, file=sys.stderr, flush=True)


def step_number(step: str) -> int | Literal["best", "newest"]:
    """The checkpoint that --step names. Raises ConfigError."""
    if step == "best" or step == "newest":
        return step
    if not (step.isascii() and step.isdecimal() and len(step) < 16):
        raise ConfigError(f"--step {step}: give newest, best, or the number of a step")
    return int(step)


def check_within(lowest: float, highest: float = math.inf, **values: float | None) -> None:
    """Raises ConfigError for an option that is given and outside its bounds."""
    rule = f"at least {lowest}" if highest == math.inf else f"a number from {lowest} to {highest}"
    for name, value in values.items():
        if value is not None and not lowest <= value <= highest:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: give {rule}")


def given(arguments: list[str], option: str) -> str | None:
    """The value of an option that decides the defaults of others, looked up before tyro parses.

    The last one counts; None if the option is absent or has no value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(option, dest="value", nargs="?")
    value = parser.parse_known_args(arguments)[0].value
    return None if value is None or value.startswith("--") else value


def named_config(arguments: list[str]) -> tuple[Any, Config]:
    """Name and content of --config, on which the defaults of all other fields depend."""
    name = given(arguments, "--config")
    if name is None:
        return tyro.MISSING, Config()
    return name, configfile.load(name)


def check_pretraining(config: Config, name: str | None) -> None:
    """Raises ConfigError for the config of a fine-tuning run."""
    if config.task is not None:
        raise ConfigError(
            f"{name} is a config of fine-tuning: albert-jax finetune --config takes it"
        )


def column_names(columns: str) -> tuple[str, ...]:
    """The names in `A,B,C`."""
    return tuple(name.strip() for name in columns.split(","))


def write_json_lines(values: Iterable[Mapping[str, Any]], out: str | None) -> None:
    """Writes one JSON object per line to stdout (also for "-"), or to a file, which appears only
    when it is complete.

    A reader of stdout sees each line as soon as there is one.
    """
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    if out in (None, "-"):
        for line in lines:
            sys.stdout.write(line)
            sys.stdout.flush()
    else:
        files.write(out, "".join(lines).encode())
