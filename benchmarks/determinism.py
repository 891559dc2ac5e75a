"""One sequence of batches, whatever makes it: its hash for hosts, workers and interruptions.

    python benchmarks/determinism.py [--batches 1000] [--rows 64] [--length 128] [--documents 20000]

The hash covers every array of every batch; the rows of several hosts are put together as their
devices would hold them. "interrupted" starts a new reader, which knows nothing but the number of
the next batch, at 20 random places. Ends with code 1 if the hashes differ.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from input import Pieces, make_corpus

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.batch import Batch
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.pipeline import batches
from albert_jax.data.corpus.corpus import Corpus

INTERRUPTIONS = 20


def host(
    corpus: Corpus, phase: PhaseConfig, rows: np.ndarray, workers: int, starts: Sequence[int]
) -> Iterator[Batch]:
    """The batches of one host, begun anew at each of the starts (the last one is the end)."""
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        builder = BatchBuilder([corpus], Pieces(), phase, seed=1, phase_index=0)  # type: ignore[arg-type]
        yield from batches(builder, start, stop, rows, workers)


def sequence_hash(
    corpus: Corpus, phase: PhaseConfig, hosts: int, workers: int, starts: Sequence[int]
) -> str:
    """Hash over the batches of all hosts together."""
    total = hashlib.sha256()
    shares = np.split(np.arange(phase.batch_size), hosts)
    streams = [host(corpus, phase, rows, workers, starts) for rows in shares]
    for parts in zip(*streams, strict=True):
        for name in sorted(parts[0]):
            total.update(np.concatenate([part[name] for part in parts]).tobytes())
    return total.hexdigest()


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--documents", type=int, default=20_000)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    cuts = rng.choice(np.arange(1, asked.batches), INTERRUPTIONS, replace=False)
    broken = [0, *sorted(cuts.tolist()), asked.batches]
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder), asked.documents)
        for packing in (False, True):
            phase = PhaseConfig(
                sequence_length=asked.length, batch_size=asked.rows, packing=packing
            )
            hashes = set()
            for hosts, workers, starts in (
                *((hosts, workers, [0, asked.batches]) for hosts in (1, 2, 4)
                  for workers in (0, 1, 2)),
                (1, 0, broken), (2, 1, broken),
            ):  # fmt: skip
                begin = time.perf_counter()
                digest = sequence_hash(corpus, phase, hosts, workers, starts)
                seconds = time.perf_counter() - begin
                hashes.add(digest)
                print(f"{'packed' if packing else 'pairs':6}  {hosts} hosts, {workers} workers, "
                      f"{'interrupted 20 times' if starts is broken else 'in one go':20}  "
                      f"{digest[:16]}  {seconds:5.1f} s", flush=True)  # fmt: skip
            found.add(len(hashes))
    print("one hash each" if found == {1} else "THE HASHES DIFFER")
    return int(found != {1})


if __name__ == "__main__":
    sys.exit(main())
