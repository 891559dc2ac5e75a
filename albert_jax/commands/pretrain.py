"""`albert-jax pretrain`: the command that trains a model, or continues a run."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from albert_jax import configfile
from albert_jax.commands.options import Fields, File, Run, check_pretraining, named_config
from albert_jax.config import Config
from albert_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pretrain a model, or continue the run in --out from its newest complete checkpoint.

    Every field of the config is an option too; the defaults shown are those of --config. The
    vocabulary has the size of that of the prepared data, unless --model.vocab-size names another.
    """

    config: File
    """Preset (tiny), TOML file, or the folder of a run."""
    out: Run
    """Run folder; made if missing, continued if it belongs to this config."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR")] = ()
    """Prepared folders; short for --data.prepared."""
    init: Annotated[str | None, tyro.conf.arg(metavar="RUN|DIR")] = None
    """Start from the parameters of a run or an exported directory."""
    parent: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN@STEP")] = None
    """Start a child run from the whole train state of another run at a step."""
    allow_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD")] = ()
    """Fields (or sections) of the config that may differ from those the run began with."""
    fields: Fields

    @classmethod
    def defaults(cls, arguments: list[str]) -> Pretrain:
        """The defaults under the config that is named in the arguments."""
        name, config = named_config(arguments)
        return cls(config=name, out=tyro.MISSING, fields=config)

    def run(self) -> None:
        """Trains, and returns when the last step is saved."""
        config = self.fields
        if self.data:
            data = dataclasses.replace(config.data, prepared=self.data)
            config = dataclasses.replace(config, data=data)
        if self.init and self.parent:
            raise ConfigError("--init and --from exclude each other: give one")
        check_pretraining(config, self.config)
        config.validate()
        if not config.data.prepared:
            raise ConfigError(
                "data.prepared is empty: give --data DIR (made by albert-jax data prepare)"
            )
        from albert_jax.train import pretraining

        pretraining.run(
            self._with_vocabulary_size(config),
            self.out,
            init=self.init,
            parent=self.parent,
            allow_change=self.allow_change,
        )

    def _with_vocabulary_size(self, config: Config) -> Config:
        """The config with the vocabulary size of the data, unless an option asks for another."""
        from albert_jax.data.corpus.corpus import Corpus

        folder, named = config.data.prepared[0], configfile.load(self.config).model.vocab_size
        size = Corpus.open(folder, "train").vocab_size
        if size == named or config.model.vocab_size != named:
            return config
        print(
            f"model.vocab_size = {size:,}, as in {folder} ({self.config} has {named:,})",
            file=sys.stderr,
        )
        return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size))
