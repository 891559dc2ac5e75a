"""How much of a batch is text: rows of pairs beside packed rows, over a whole epoch.

    python benchmarks/packing.py --text FILE --model spiece.model [--lengths 128 512]

The text is prepared twice: documents as blank lines part them, and every line (a paragraph) as a
document of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary

ROWS = 256


def real_share(corpus: Corpus, vocab: vocabulary.Vocabulary, length: int, packing: bool) -> float:
    """Share of the places of an epoch's whole batches that hold tokens."""
    phase = PhaseConfig(sequence_length=length, batch_size=ROWS, packing=packing)
    builder = BatchBuilder([corpus], vocab, phase, seed=0, phase_index=0)
    steps = max(1, builder.rows_per_epoch() // ROWS)
    made = (builder.batch(step, np.arange(ROWS)) for step in range(steps))
    return float(np.mean([(batch["segment_ids"] > 0).mean() for batch in made]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    asked = parser.parse_args()
    vocab = vocabulary.load(asked.model)
    print(f"{'documents':>12} {'tokens each':>12} {'rows of':>8} {'pairs':>8} {'packed':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, form in (("as they are", "paragraphs"), ("paragraphs", "lines")):
            out = Path(folder) / form
            reading = ReadOptions(format=form)  # type: ignore[arg-type]
            prepare([asked.text], vocab, str(out), PrepareOptions(reading=reading))
            corpus = Corpus.open(out)
            for length in asked.lengths:
                shares = [real_share(corpus, vocab, length, packed) for packed in (False, True)]
                print(f"{name:>12} {corpus.num_tokens / corpus.num_documents:12.0f} {length:8} "
                      f"{shares[0]:8.2%} {shares[1]:8.2%}")  # fmt: skip


if __name__ == "__main__":
    main()
