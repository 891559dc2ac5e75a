"""`albert-jax export`: a model as a directory for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Step, Weights, step_number
from albert_jax.export.export import Format, StoredType
from albert_jax.export.transformers_classes import Head


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model as a directory: for Transformers (and any hub), as a graph (ONNX, StableHLO),
    or for ourselves. A fine-tuned run comes with its task's head."""

    model: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder, or a directory that was imported or exported."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Directory to make; it must not exist."""
    step: Step = "newest"
    """Checkpoint of a run."""
    weights: Weights = "trained"
    """The parameters, or their running average."""
    to: Format = "huggingface"
    """Files of Transformers, our own files, or one graph of the network."""
    head: Head | None = None
    """Heads in the files of Transformers and graphs; the default is the task's head, or both
    heads of pretraining."""
    dtype: StoredType = "float32"
    """Type of the stored weights: bfloat16 for Transformers, int8 for ONNX."""
    num_layers: int | None = None
    """Depth of the exported network; the default is the model's own."""

    def run(self) -> None:
        """Writes the directory, and prints what was written."""
        step = step_number(self.step)

        from albert_jax.export import export
        from albert_jax.model_io.model import load

        export.check(self.to, self.head, self.dtype)
        model = load(self.model, step=step, weights=self.weights)
        if self.num_layers is not None:
            model = model.at_depth(self.num_layers)
        print(export.export(model, self.out, to=self.to, head=self.head, dtype=self.dtype))
