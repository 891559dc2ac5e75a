"""`albert-jax export` and `albert-jax import`: models for and from other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import DepthOptions, Directory
from albert_jax.export.export import Format, StoredType
from albert_jax.export.transformers_classes import Head


@dataclass(frozen=True, kw_only=True)
class Export(DepthOptions):
    """Write a model as a directory: for Transformers (and any hub), as a graph (ONNX, StableHLO),
    or for ourselves. A fine-tuned run comes with its task's head."""

    out: Directory
    """Directory to make; it must not exist."""
    to: Format = "huggingface"
    """Files of Transformers, our own files, or one graph of the network."""
    head: Head | None = None
    """Heads in the files of Transformers and graphs; the default is the task's head, or both
    heads of pretraining."""
    dtype: StoredType = "float32"
    """Type of the stored weights: bfloat16 for Transformers, int8 for ONNX."""

    def run(self) -> None:
        """Writes the directory, and prints what was written."""
        from albert_jax.export import export

        export.check(self.to, self.head, self.dtype)
        model = self.load()
        if self.num_layers is not None:
            model = model.at_depth(self.num_layers)
        print(export.export(model, self.out, to=self.to, head=self.head, dtype=self.dtype))


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read the weights of another program into a directory of ours."""

    source: Positional[Annotated[str, tyro.conf.arg(metavar="DIR|FILE")]]
    """Transformers' directory or safetensors file, or a TensorFlow 1 checkpoint of the original."""
    out: Directory
    """Directory to make; it must not exist."""
    vocabulary: str | None = None
    """Vocabulary that does not lie beside the weights."""
    config: str | None = None
    """config.json or albert_config.json that does not lie beside the weights."""

    def run(self) -> None:
        """Writes the directory, and prints a line on what came in."""
        from albert_jax.files import storage_errors
        from albert_jax.files.new_folder import new_folder
        from albert_jax.model_io import directories, native
        from albert_jax.model_io.parameter_names import OPTIONAL_MODULES

        with storage_errors(self.source):
            weights = directories.read(self.source, vocabulary=self.vocabulary, config=self.config)
        with new_folder(self.out) as folder:
            summary = native.write(folder, weights)
        parts = [f"{self.source} ({weights.format}) -> {self.out}", summary]
        absent = [module for module in OPTIONAL_MODULES if module not in weights.params]
        if absent:
            parts.append(f"without {', '.join(absent)}")
        if weights.vocabulary is None:
            parts.append("no vocabulary lay beside the weights: name one with --vocabulary")
        print("; ".join(parts))
