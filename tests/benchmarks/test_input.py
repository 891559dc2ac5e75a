"""The benchmark of input: batches of its corpus can be made and timed."""

from __future__ import annotations


def test_batches_of_the_corpus_are_timed(benchmark, tmp_path):
    program = benchmark("input")
    corpus = program.make_corpus(tmp_path, 200)
    found = program.measure_ours(corpus, 64, packing=True, rows=16, count=2, repeats=1)
    assert found["real"] > 0 and 0.5 < found["share"] <= 1
