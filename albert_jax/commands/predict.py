"""`albert-jax predict`: a fine-tuned run applied to a file, or to a line of text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from albert_jax.commands import options
from albert_jax.commands.options import DepthOptions, OptionalFile
from albert_jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from albert_jax.inference.predictor import Predictor
    from albert_jax.tasks.task import AnyTask

CHUNK_BYTES = 1 << 18
"""Most bytes of stdin that are answered together."""


@dataclass(frozen=True, kw_only=True)
class Predict(DepthOptions):
    """Apply a fine-tuned run to a file, or to a line of text; one JSON object per example.

    A line holds an example of the task, with tabs between its parts.
    """

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Fine-tuned run."""
    text: Positional[Annotated[str | None, tyro.conf.arg(metavar="TEXT")]] = None
    """One example, its parts between tabs: a text or two; question and context; context and
    choices; words; source."""
    input: OptionalFile = None
    """Examples as for training, without their answers; - answers each line of stdin as it comes."""
    columns: Annotated[str | None, tyro.conf.arg(metavar="A,B")] = None
    """Names of the columns, - for one to ignore; the default is those of the training."""
    out: OptionalFile = None
    """File for the predictions; the default is stdout."""
    top_k: int | None = None
    """Labels of a classifier, or answers to a question, to list; the default is all labels, and the
    one best answer."""
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
        """Prints or writes the predictions. Raises DataError if a line of stdin has none."""
        if (self.text is None) == (self.input is None):
            raise ConfigError("give one of TEXT and --input FILE (- reads lines from stdin)")
        if self.columns is not None and self.input in (None, "-"):
            raise ConfigError("--columns names those of a file: leave it out without --input FILE")
        from albert_jax.inference.predictor import Predictor

        predictor = Predictor(
            self.load(),
            num_layers=self.num_layers,
            top_k=self.top_k,
            exit_confidence=self.exit_confidence,
            denoising_steps=self.denoising_steps,
            temperature=self.temperature,
            seed=self.seed,
            show_step=options.log if self.show_steps else None,
            report=options.log,
        )
        faults: list[str] = []
        if self.input == "-":
            predictions = _answers(predictor, faults)
        else:
            predictions = predictor.predictions(self._examples(predictor.task))
        options.write_json_lines(predictions, self.out)
        if predictor.early_exit is not None and predictor.early_exit.layers_used:
            options.log(predictor.early_exit.summary())
        if faults:
            plural = "line has" if len(faults) == 1 else "lines have"
            raise DataError(f"{len(faults)} {plural} no answer: {faults[0]}")

    def _examples(self, task: AnyTask) -> list[Any]:
        """The examples of TEXT or of the file. Raises DataError and ConfigError."""
        if self.input is not None:
            columns = None if self.columns is None else options.column_names(self.columns)
            return task.read_for_prediction(self.input, columns)
        return [task.parse_line(str(self.text), "the text")]


def _answers(predictor: Predictor, faults: list[str]) -> Iterator[dict[str, Any]]:
    """An answer for each line of stdin; "error" in place of those that are added to `faults`."""
    from albert_jax.data.sources import tables

    def example(number: int, line: bytes) -> Any:
        try:
            text = tables.decode(line, "stdin", number)
            return predictor.task.parse_line(text, f"line {number}")
        except DataError as error:
            return error

    if sys.stdin.isatty():
        options.log("an example per line, with tabs between its parts; Ctrl-D ends")
    first = 1
    for lines in _lines_as_they_come(sys.stdin.buffer):
        answers = predictor.answers([example(*pair) for pair in enumerate(lines, first)])
        for number, answer in enumerate(answers, first):
            if "error" in answer:
                faults.append(answer["error"])
                answer = {"line": number} | answer
            yield answer
        first += len(lines)


def _lines_as_they_come(stream: Any) -> Iterator[list[bytes]]:
    """The lines of a stream, each time all those that are there already."""
    rest = b""
    while piece := stream.read1(CHUNK_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]
