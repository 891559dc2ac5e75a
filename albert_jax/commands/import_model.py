"""`albert-jax import`: the command that reads the weights of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import Directory


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read the weights of another program into a directory of ours."""

    source: Positional[Annotated[str, tyro.conf.arg(metavar="DIR|FILE")]]
    """Transformers' directory or safetensors file, the directory of a PL-BERT with its weights as
    safetensors, or a TensorFlow 1 checkpoint of the original."""
    out: Directory
    """Directory to make; it must not exist."""
    vocabulary: str | None = None
    """Vocabulary that does not lie beside the weights."""
    config: str | None = None
    """config.json or albert_config.json that does not lie beside the weights."""

    def run(self) -> None:
        """Writes the directory, and prints a line on what came in."""
        from albert_jax.files import storage_errors
        from albert_jax.model import albert
        from albert_jax.model_io import directories

        with storage_errors(self.source):
            weights = directories.read(self.source, vocabulary=self.vocabulary, config=self.config)
        summary = directories.write(weights, self.out)
        parts = [f"{self.source} ({weights.format}) -> {self.out}", summary]
        modules = albert.abstract_params(weights.config)
        absent = [module for module in modules if module not in weights.params]
        if absent:
            parts.append(f"without {', '.join(absent)}")
        if weights.vocabulary is None:
            parts.append("no vocabulary lay beside the weights: name one with --vocabulary")
        else:
            parts.append(f"vocabulary {'verified' if weights.fingerprint else 'unverified'}")
        print("; ".join(parts))
