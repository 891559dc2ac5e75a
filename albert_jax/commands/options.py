"""Options that several verbs share, and those that are looked up before the others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import tyro

from albert_jax import configfile, files
from albert_jax.config import Config
from albert_jax.errors import ConfigError

Fields = Annotated[Config, tyro.conf.arg(name="")]
"""Every field of a config as an option."""
Step = Annotated[str, tyro.conf.arg(metavar="newest|best|N")]
Weights = Literal["trained", "averaged"]


def step_number(step: str) -> int | Literal["best", "newest"]:
    """The checkpoint that --step names. Raises ConfigError."""
    if step == "best":
        return "best"
    if step == "newest":
        return "newest"
    if not (step.isascii() and step.isdecimal() and len(step) < 16):
        raise ConfigError(f"--step {step}: give newest, best, or the number of a step")
    return int(step)


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


def column_names(columns: str) -> tuple[str, ...]:
    """The names in `A,B,C`."""
    return tuple(name.strip() for name in columns.split(","))


def write_json_lines(values: Iterable[Mapping[str, Any]], out: str | None) -> None:
    """Writes one JSON object per line to a file, which appears complete or not at all, or to
    stdout."""
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    if out is not None:
        files.write(out, "".join(lines).encode())
        return
    for line in lines:
        sys.stdout.write(line)
