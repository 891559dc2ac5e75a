"""`albert-jax explain`: the verb that shows what a model does with a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number
from albert_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Show what a model does with a text: attention of every head in every pass, the words behind
    [MASK] and the label after each pass, and for a classifier what each piece adds to its label.
    """

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder, of pretraining or fine-tuning, or exported directory."""
    text: Positional[Annotated[str, tyro.conf.arg(metavar="TEXT")]]
    """A text, or two with a tab between; [MASK] for a word that is to be guessed."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Folder to make, with explain.html; it must not exist."""
    top: int = 3
    """Guesses per mask."""
    num_layers: int | None = None
    """Depth; none: the model's own."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""

    def run(self) -> None:
        """Prints a table and writes the folder."""
        if not 1 <= self.top <= 100:
            raise ConfigError(f"--top {self.top}: give a number between 1 and 100")
        from albert_jax.inference import explain as explaining

        print(
            explaining.explain(
                self.model,
                self.text,
                self.out,
                num_layers=self.num_layers,
                top=self.top,
                step=step_number(self.step),
                weights=self.weights,
            )
        )
