"""`albert-jax evaluate`, `fill-mask`, `export` and `import`: the verbs that take a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number
from albert_jax.errors import ConfigError


def _depths(words: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers in `2,4,8` or `2 4 8`."""
    found = [part for word in words for part in word.split(",") if part]
    for part in found:
        if not (part.isascii() and part.isdecimal() and len(part) < 16):
            raise ConfigError(f"--num-layers {part}: give numbers of passes, such as 2,4,8")
    return tuple(map(int, found))


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure a run on its held-out documents, or a fine-tuned one on its dev examples."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN")]]
    """Run folder."""
    step: Step = "newest"
    """Checkpoint to measure."""
    weights: Weights = "trained"
    """The parameters, or their running average."""
    num_layers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N,N,...")] = ()
    """Depths to measure side by side; none: the model's own."""
    changes: bool = False
    """Tell what each pass changes: the mean cosine of a token's state to that before the pass."""
    rows: int | None = None
    """Held-out rows (fine-tuned: examples) that are read at most; none given: run.max_eval_samples
    (fine-tuned: all)."""
    input: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """Labelled examples for a fine-tuned run; none given: its task.dev."""

    def run(self) -> None:
        """Prints a table; evaluation.json and curves.png lie in the run folder afterwards."""
        if self.rows is not None and self.rows < 1:
            raise ConfigError(f"--rows {self.rows}: give at least 1")
        from albert_jax.evaluation import evaluate as stage

        step = step_number(self.step)
        told = stage.evaluate(
            self.model,
            step=step,
            weights=self.weights,
            num_layers=_depths(self.num_layers),
            rows=self.rows,
            examples=self.input,
            changes=self.changes,
        )
        print(told)


@dataclass(frozen=True, kw_only=True)
class FillMask:
    """Guess the words behind [MASK].

    Without texts: three fixed sentences of the documentation that the default corpus holds out.
    """

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder or exported directory."""
    texts: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")]] = ()
    """Texts, each with one [MASK] or more."""
    top: int = 5
    """Guesses per mask."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""

    def run(self) -> None:
        """Prints each text and its guesses with their probabilities."""
        if not 1 <= self.top <= 1000:
            raise ConfigError(f"--top {self.top}: give a number between 1 and 1000")
        from albert_jax.inference import fill_mask
        from albert_jax.model_io import model as loading

        model = loading.load(self.model, step=step_number(self.step), weights=self.weights)
        if not self.texts:
            print(fill_mask.held_out_table(model))
            return
        found = fill_mask.fill_mask(model, self.texts, top_k=self.top)
        print(fill_mask.table(self.texts, found))


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model as a directory: for Transformers (and any Hub), as a graph (ONNX, StableHLO),
    for us, or for the original. A fine-tuned run comes with its task's head."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder, or a directory that was imported or exported."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Directory to make; it must not exist."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""
    to: Literal["huggingface", "native", "tf1", "onnx", "stablehlo"] = "huggingface"
    """Files of Transformers, our own, a TensorFlow 1 checkpoint, or one graph of the network."""
    head: Literal["pretraining", "mlm", "base"] | None = None
    """Which heads Transformers' files and graphs hold; none: the task's, else both of
    pretraining."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Type of the stored weights: bfloat16 for Transformers, int8 for ONNX."""
    num_layers: int | None = None
    """Depth of the exported network; none: the model's own."""

    def run(self) -> None:
        """Writes the directory."""
        from albert_jax.export import export as stage

        stage.export(
            self.model,
            self.out,
            step=step_number(self.step),
            weights=self.weights,
            to=self.to,
            head=self.head,
            dtype=self.dtype,
            num_layers=self.num_layers,
        )


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read the weights of another program into a directory of ours."""

    source: Positional[Annotated[str, tyro.conf.arg(metavar="DIR|FILE")]]
    """Transformers' directory or safetensors file, or a TensorFlow 1 checkpoint of the original."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Directory to make; it must not exist."""
    vocabulary: str | None = None
    """Vocabulary that does not lie beside the weights."""
    config: str | None = None
    """config.json or albert_config.json that does not lie beside the weights."""

    def run(self) -> None:
        """Writes the directory."""
        from albert_jax.model_io import importing as stage

        stage.import_model(self.source, self.out, vocabulary=self.vocabulary, config=self.config)
