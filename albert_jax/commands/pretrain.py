"""`albert-jax pretrain` and `albert-jax config show`: the verbs that take a config."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from albert_jax import configfile
from albert_jax.commands.options import Fields, given
from albert_jax.config import Config, leaves
from albert_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain a model, or continue the run in --out from its newest whole checkpoint.

    Every field of the config can be given too; the defaults shown are those of --config.
    """

    config: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Preset (tiny), TOML file, or the folder of a run."""
    out: Annotated[str, tyro.conf.arg(metavar="RUN")]
    """Run folder; made if missing, continued if it belongs to this config."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """Prepared folders: short for --data.prepared."""
    init: Annotated[str | None, tyro.conf.arg(metavar="RUN|DIR")] = None
    """Start from the parameters of a run or an exported directory."""
    branch: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN@STEP")] = None
    """Start a child run from the whole state of another run at a step."""
    allow_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD")] = ()
    """Fields (or sections) of the config that may differ from those the run began with."""
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> Pretrain:
        """The defaults under the config that is named in the arguments."""
        name, config = _named_config(arguments)
        return cls(config=name, out=tyro.MISSING, fields=config)

    def run(self) -> None:
        """Trains; returns when the last step is saved."""
        config = self.fields
        if self.data:
            data = dataclasses.replace(config.data, prepared=self.data)
            config = dataclasses.replace(config, data=data)
        if self.init and self.branch:
            raise ConfigError("--init and --from exclude each other: give one")
        if config.task is not None:
            raise ConfigError(
                f"{self.config} is a config of fine-tuning: albert-jax finetune --config takes it"
            )
        config.validate()
        if not config.data.prepared:
            raise ConfigError(
                "data.prepared is empty: give --data DIR (made by albert-jax data prepare)"
            )
        from albert_jax.train import pretrain

        pretrain.run(
            config, self.out, init=self.init, branch=self.branch, allow_change=self.allow_change
        )


@dataclass(frozen=True, kw_only=True)
class ConfigShow:
    """Print a config with all its fields as TOML that can be used as --config.

    Comments tell its hash, the number of parameters, and what differs from its preset.
    """

    config: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Preset (tiny), TOML file, or the folder of a run."""
    get: Annotated[str | None, tyro.conf.arg(metavar="FIELD")] = None
    """Print the value of this field only."""
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> ConfigShow:
        """The defaults under the config that is named in the arguments."""
        name, config = _named_config(arguments)
        return cls(config=name, fields=config)

    def run(self) -> None:
        """Prints to stdout."""
        config = self.fields
        config.validate()
        if self.get is not None:
            print(_field(config, self.get))
            return
        preset, base = configfile.base_of(self.config)
        print(f"# digest {configfile.digest(config)}")
        print("\n".join(f"# {line}" for line in _counts(config)))
        changes = configfile.difference(config, base)
        if changes:
            print(f"# differs from {preset}:")
            print("\n".join(f"#   {line}" for line in changes))
        else:
            print(f"# same as {preset}")
        print()
        print(configfile.dumps(config), end="")


def _named_config(arguments: list[str]) -> tuple[Any, Config]:
    """(name, config) of --config, which decides the other defaults, so it is looked up first."""
    name = given(arguments, "--config")
    if name is None:
        return tyro.MISSING, Config()
    return name, configfile.load(name)


def _field(config: Config, name: str) -> str:
    """One value as a shell script wants it: lists as words, true and false in lower case."""
    values = dict(leaves(config))
    values["steps"] = config.steps
    key = name.replace("-", "_")
    if key not in values:
        raise ConfigError(f"--get {name}: no such field{configfile.nearest(key, list(values))}")
    value = values[key]
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _counts(config: Config) -> list[str]:
    """Parameter counts by shape evaluation: nothing is allocated."""
    from albert_jax.model.init import count

    encoder, whole = count(config.model, heads=False), count(config.model)
    return [f"parameters {encoder:,} (encoder with pooler), {whole:,} (with both heads)"]
