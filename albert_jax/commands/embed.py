"""`albert-jax embed`: sentences as vectors."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

from albert_jax.commands.options import (
    DepthOptions,
    OptionalFile,
    SentenceOptions,
    write_json_lines,
)
from albert_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Embed(SentenceOptions, DepthOptions):
    """Turn sentences into vectors.

    A sentence-embedding run gives the vectors of its task, which have length 1. Any other model
    gives the mean of its last states.
    """

    out: OptionalFile = None
    """A file X.npy for one array, or X.jsonl; the default is JSON lines on stdout."""

    def run(self) -> None:
        """Prints or writes the vectors."""
        if self.out is not None and not self.out.endswith((".npy", ".jsonl")):
            raise ConfigError(f"--out {self.out}: give a name that ends in .npy or .jsonl")
        texts, where = self.sentences()
        import numpy as np

        from albert_jax import files
        from albert_jax.inference import embed

        model = self.load()
        rows = embed.token_rows(model, texts, where)
        if truncated := embed.truncated_texts(rows):
            print(truncated, file=sys.stderr)
        vectors = embed.embed_rows(model, rows, self.num_layers)
        if self.out is None or self.out.endswith(".jsonl"):
            found = zip(texts, vectors, strict=True)
            write_json_lines(({"text": t, "vector": v.tolist()} for t, v in found), self.out)
            return
        buffer = io.BytesIO()
        np.save(buffer, vectors)
        files.write(self.out, buffer.getvalue())
        print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers: {self.out}")
