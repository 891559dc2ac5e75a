"""`albert-jax config show`: the command that prints a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from albert_jax import configfile
from albert_jax.commands.options import Fields, File, named_config
from albert_jax.config import Config
from albert_jax.config_fields import leaves
from albert_jax.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class ConfigShow:
    """Print a config with all its fields, as TOML that --config reads.

    Comments give its digest, the number of parameters, and what differs from its preset.
    """

    config: File
    """Preset (tiny), TOML file, or the folder of a run."""
    get: Annotated[str | None, tyro.conf.arg(metavar="FIELD")] = None
    """Print the value of this field only."""
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> ConfigShow:
        """The defaults under the config that is named in the arguments."""
        name, config = named_config(arguments)
        return cls(config=name, fields=config)

    def run(self) -> None:
        """Prints to stdout."""
        config = self.fields
        config.validate()
        if self.get is not None:
            print(_value(config, self.get))
            return
        from albert_jax.model.init import num_parameters

        encoder, total = num_parameters(config.model, heads=False), num_parameters(config.model)
        print(f"# digest {configfile.digest(config)}")
        print(f"# parameters {encoder:,} (encoder with pooler), {total:,} (with all heads)")
        name, base = configfile.base_of(self.config)
        changes = configfile.difference(config, base)
        print(f"# differs from {name}:" if changes else f"# same as {name}")
        for change in changes:
            print(f"#   {change}")
        print()
        print(configfile.dumps(config), end="")


def _value(config: Config, name: str) -> str:
    """One value for shell scripts: lists as words, true and false in lower case."""
    values = dict(leaves(config))
    values["steps"] = config.steps
    key = name.replace("-", "_")
    if key not in values:
        raise ConfigError(f"--get {name}: no such field{nearest(key, values)}")
    value = values[key]
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
