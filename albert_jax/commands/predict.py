"""`albert-jax predict`: a fine-tuned run applied to a file, or to a line of text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands import options
from albert_jax.commands.options import DepthOptions, File
from albert_jax.errors import ConfigError

if TYPE_CHECKING:
    from albert_jax.model_io.model import Model

CHUNK = 1024
"""Most examples whose outputs are held at a time; the features of all are held."""


@dataclass(frozen=True, kw_only=True)
class Predict(DepthOptions):
    """Apply a fine-tuned run to a file, or to a line of text; one JSON object per example.

    A line holds an example of the task, with tabs between its parts.
    """

    text: Positional[Annotated[str | None, tyro.conf.arg(metavar="TEXT")]] = None
    """One example, its parts between tabs: a text or two; question and context; context and
    choices; words; source."""
    input: File | None = None
    """Examples as for training, without their answers; - reads lines as TEXT from stdin."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Names of the columns, - for one to ignore; the default is those of the training."""
    out: File | None = None
    """File for the predictions; the default is stdout."""
    denoising_steps: int | None = None
    """Generation: forward passes that fill the target; the default is task.denoising_steps."""
    temperature: float = 0.0
    """Generation: 0 takes the most probable tokens, above 0 they are sampled."""
    seed: int = 0
    """Generation: seed of the sampling."""
    show_steps: bool = False
    """Generation: print the target after each denoising step on stderr."""
    exit_confidence: Annotated[float | None, tyro.conf.arg(metavar="P")] = None
    """Classification: stop for each text after the layer at which its most probable label reaches
    this probability."""

    def run(self) -> None:
        """Prints or writes the predictions."""
        if (self.text is None) == (self.input is None):
            raise ConfigError("give one of TEXT and --input FILE")
        if self.temperature and not 1e-4 <= self.temperature <= 1e4:
            raise ConfigError(f"--temperature {self.temperature}: give 0, or 0.0001 to 10000")
        options.check_within(0, 2**31 - 1, seed=self.seed)
        confidence = self.exit_confidence
        if confidence is not None and not 0 < confidence <= 1:
            raise ConfigError(f"--exit-confidence {confidence}: give a probability, such as 0.9")
        from albert_jax.inference.predict import with_denoising_steps

        model = self.load()
        if self.denoising_steps is not None:
            model = with_denoising_steps(model, self.denoising_steps)
        options.write_json_lines(self._predictions(model, self._examples(model)), self.out)

    def _examples(self, model: Model) -> list[Any]:
        """The examples of TEXT, stdin or the file. Raises DataError and ConfigError."""
        from albert_jax.data.sources import tables
        from albert_jax.inference.predict import task_of

        task = task_of(model)
        if self.input is not None and self.input != "-":
            columns = None if self.columns is None else options.column_names(self.columns)
            return task.read_for_prediction(self.input, columns)
        lines = self.text
        if lines is None:
            lines = tables.decode(sys.stdin.buffer.read(), "stdin")
        return [
            task.parse_line(line, f"line {number}")
            for number, line in enumerate(lines.rstrip("\n").split("\n"), start=1)
        ]

    def _predictions(self, model: Model, examples: list[Any]) -> Iterator[dict[str, Any]]:
        """One prediction per example; every bad example is refused before the first one."""
        from albert_jax.inference.early_exit import EarlyExit
        from albert_jax.inference.predict import cut_examples, featurize, predict
        from albert_jax.tasks.task import Sampling

        early_exit = None
        if self.exit_confidence is not None:
            early_exit = EarlyExit(model, self.exit_confidence, self.num_layers)
        chunks = max(1, -(-len(examples) // CHUNK))
        bounds = pairwise(len(examples) * i // chunks for i in range(chunks + 1))
        parts = [examples[begin:end] for begin, end in bounds]
        features = [featurize(model, part) for part in parts]
        if cut := cut_examples(model, list(chain(*features))):
            print(cut, file=sys.stderr)
        sampling = Sampling(
            temperature=self.temperature,
            seed=self.seed,
            show_step=(lambda text: print(text, file=sys.stderr)) if self.show_steps else None,
        )
        for part, part_features in zip(parts, features, strict=True):
            for prediction in predict(
                model,
                part,
                features=part_features,
                num_layers=self.num_layers,
                early_exit=early_exit,
                sampling=sampling,
            ):
                prediction.pop("probabilities", None)
                yield prediction
        if early_exit is not None:
            print(early_exit.summary(), file=sys.stderr)
