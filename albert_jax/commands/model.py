"""`albert-jax export` and `import`: models of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number


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
