"""Options that several verbs share, and those that are looked up before the others."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from albert_jax.config import Config
from albert_jax.errors import ConfigError

Fields = Annotated[Config, tyro.conf.arg(name="")]
"""Every field of a config as an option."""
Step = Annotated[str, tyro.conf.arg(metavar="newest|best|N")]
Weights = Literal["trained", "averaged"]


def step_number(step: str) -> int | Literal["best", "newest"]:
    """The checkpoint that --step names; raises ConfigError."""
    if step == "best":
        return "best"
    if step == "newest":
        return "newest"
    if not (step.isascii() and step.isdecimal() and len(step) < 16):
        raise ConfigError(f"--step {step}: give newest, best, or the number of a step")
    return int(step)


def given(arguments: list[str], option: str) -> str | None:
    """The value of an option that decides the defaults of others; the last one counts, None is
    for one that is not there or has no value."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == option:
            found = next(iter(arguments[i + 1 : i + 2]), None)
        elif argument.startswith(option + "="):
            found = argument.removeprefix(option + "=")
    return None if found is None or found.startswith("--") else found
