"""What packing is for: hardly any padding, on chapters of books and on single paragraphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.sources.sources import ReadOptions
from albert_jax.data.vocabularies import vocabulary


@pytest.mark.slow
@pytest.mark.parametrize(("form", "unpacked"), [("paragraphs", 0.93), ("lines", 0.3)])
def test_real_tokens_at_512(shared: Path, tmp_path: Path, form: str, unpacked: float) -> None:
    vocab = vocabulary.load(str(shared / "data/tokenizer/albert-en-30k.spiece.model"))
    options = PrepareOptions(reading=ReadOptions(format=form))  # type: ignore[arg-type]
    prepare([str(shared / "data/corpus/books-en.txt")], vocab, str(tmp_path / "p"), options)
    corpus, found = Corpus.open(tmp_path / "p"), {}
    for packing in (False, True):
        phase = PhaseConfig(sequence_length=512, batch_size=256, packing=packing)
        builder = BatchBuilder([corpus], vocab, phase, seed=0, phase_index=0)
        steps = range(max(1, min(20, builder.rows_per_epoch() // 256)))
        made = [builder.batch(step, np.arange(256))["segment_ids"] > 0 for step in steps]
        found[packing] = np.mean(made)
    assert found[True] >= 0.98
    assert found[False] < unpacked
