"""`albert-jax export`: the command that writes a model for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albert_jax.commands.options import DepthOptions, Directory
from albert_jax.errors import ConfigError
from albert_jax.export import ExportFormat, Head, StoredType


@dataclass(frozen=True, kw_only=True)
class Export(DepthOptions):
    """Write a model as a directory: for Transformers (and any hub), as a graph (ONNX, StableHLO),
    for speech programs (plbert), or for ourselves. A fine-tuned run comes with its task's head."""

    out: Directory
    """Directory to make; it must not exist."""
    to: ExportFormat | Literal["babylm"] = "huggingface"
    """Files of Transformers, our own files, one graph of the network, the PL-BERT of StyleTTS2 and
    Kokoro, or for BabyLM a directory of Transformers for each checkpoint of run.save_at_words
    (chck_1M, ...) and main."""
    head: Head | None = None
    """Heads in the files of Transformers and graphs; the default is the task's head, or both
    heads of pretraining."""
    dtype: StoredType = "float32"
    """Type of the stored weights: bfloat16 for Transformers, int8 for ONNX."""

    def run(self) -> None:
        """Writes the directory, and prints what was written."""
        from albert_jax.export import babylm, export

        if self.to == "babylm":
            export.check("huggingface", self.head, self.dtype)
            if (self.num_layers, self.step, self.weights) != (None, "newest", None):
                raise ConfigError(
                    "--to babylm chooses the checkpoints: leave out --num-layers, --step and "
                    "--weights"
                )
            print(babylm.export(self.model, self.out, head=self.head, dtype=self.dtype))
            return
        export.check(self.to, self.head, self.dtype)
        model = self.load()
        if self.num_layers is not None:
            model = model.at_depth(self.num_layers)
        print(export.export(model, self.out, to=self.to, head=self.head, dtype=self.dtype))
