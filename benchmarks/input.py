"""How fast batches are made: ours through Grain, beside Hugging Face's collator.

    python benchmarks/input.py [--documents 2000000] [--batches 8] [--repeats 3] [--folder DIR]

Makes a corpus of short documents, then takes batches of 4096 rows from the middle of an epoch, for
rows of 128 and 512, unpacked and packed: fresh n-gram masks and sentence order each time. Prints
tokens per CPU-second of this process (so that the figure is per core, whatever else
the machine does), medians of the repeats, and the cores that a host of 8 accelerators would need
for ALBERT-base at 60% of peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from albert_jax.config import PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.batches.pipeline import batches
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.corpus.shard_writer import ShardWriter

VOCAB = 30_000
NEEDED = {"8 x H200": 7.2e6, "8 x v6e": 8.3e6}
"""Tokens/s that a host consumes with ALBERT-base at 60% of peak."""


class Pieces:
    """A vocabulary without text: 70% of the ids start a word, as in English."""

    size, pad_id, unk_id, cls_id, sep_id, mask_id, separator_id = VOCAB, 0, 1, 2, 3, 4, -1
    fingerprint = "0" * 64
    starts_word = np.random.default_rng(0).random(VOCAB) < 0.7


def make_corpus(folder: Path, documents: int) -> Corpus:
    """Documents of one paragraph: 1 to 20 sentences, median about 45 tokens."""
    if not (folder / "manifest.json").exists():
        rng, shards = np.random.default_rng(0), []
        for number in range(0, documents, 250_000):
            with ShardWriter(folder, f"train-{number // 250_000:05d}", VOCAB) as writer:
                count = min(250_000, documents - number)
                sentences = np.minimum(rng.geometric(0.4, count), 20)
                lengths = np.clip(rng.gamma(3, 7, sentences.sum()), 2, 200).astype(np.int64)
                ids = rng.integers(5, VOCAB, lengths.sum(), dtype=np.uint16)
                writer.add_many(ids, lengths, sentences)
                shards.append(writer.close())
        manifest = {"format": 1, "vocabulary": Pieces.fingerprint, "vocab_size": VOCAB,
                    "splits": {"train": shards}, "unigram_sha256": ""}  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return Corpus.open(folder)


def measure_ours(
    corpus: Corpus, length: int, packing: bool, rows: int, count: int, repeats: int
) -> dict:
    """Rates over the batches, with the planning of their group shared out among its rows."""
    phase = PhaseConfig(sequence_length=length, batch_size=rows, packing=packing)
    started = time.process_time()
    builder = BatchBuilder([corpus], Pieces(), phase, seed=0, phase_index=0)  # type: ignore[arg-type]
    per_epoch = builder.rows_per_epoch()
    counting = time.process_time() - started
    middle = per_epoch // rows // 2
    order = builder.orders[0]
    # The first batch that lies in one group whole, past the middle of the epoch.
    touched = [order.locate(np.array([step * rows, step * rows + count * rows - 1]))
               for step in range(middle, middle + 1000)]  # fmt: skip
    middle += next((k for k, groups in enumerate(touched) if len(groups) == 1), 0)
    started = time.process_time()
    builder.batch(middle, np.arange(1))
    planning = time.process_time() - started
    epoch, group, _, _ = order.locate(np.array([middle * rows]))[0]
    group_rows = len(order.group(epoch, group).order)
    real = 0
    list(batches(builder, middle, middle + 1, np.arange(1)))  # Imports Grain.
    times = []
    for _ in range(repeats):
        started = time.process_time()
        for batch in batches(builder, middle, middle + count, np.arange(rows)):
            real = int((batch["segment_ids"] > 0).sum())
        times.append((time.process_time() - started) / count)
    # Every batch pays for its part of the group.
    seconds = statistics.median(times) + planning * rows / group_rows
    return {"slots": rows * length / seconds, "real": real / seconds,
            "share": real / rows / length, "counting": corpus.num_tokens / counting,
            "planning": planning}  # fmt: skip


def measure_hugging_face(length: int, rows: int, repeats: int) -> float | None:
    """Tokens per CPU-second of DataCollatorForLanguageModeling (single tokens, no sentence order),
    numpy out; None if Transformers is not installed."""
    try:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast
    except ImportError:
        return None
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    words |= {f"w{number}": number for number in range(5, VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")),
        pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, return_tensors="np")
    rng = np.random.default_rng(0)
    examples = [{"input_ids": rng.integers(5, VOCAB, length).tolist()} for _ in range(rows)]
    rates = []
    for _ in range(repeats):
        started = time.process_time()
        collate([dict(example) for example in examples])
        rates.append(rows * length / (time.process_time() - started))
    return statistics.median(rates)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2_000_000)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        corpus = make_corpus(options.folder or Path(temporary), options.documents)
        print(f"{corpus.num_documents:,} documents, {corpus.num_tokens:,} tokens")
        print(f"{'rows of':>8} {'plan':>9} {'M places/s':>11} {'M tokens/s':>11} {'real':>6} "
              f"{'cores: ' + ', '.join(NEEDED):>28}")  # fmt: skip
        for length in (128, 512):
            for packing in (False, True):
                found = measure_ours(
                    corpus, length, packing, options.rows, options.batches, options.repeats
                )
                cores = ", ".join(f"{need / found['slots']:.2f}" for need in NEEDED.values())
                print(f"{length:8} {'packed' if packing else 'pairs':>9} "
                      f"{found['slots'] / 1e6:11.1f} {found['real'] / 1e6:11.1f} "
                      f"{found['share']:6.1%} {cores:>28}   (a group is planned in "
                      f"{found['planning']:.1f} s, an epoch counted at "
                      f"{found['counting'] / 1e6:.0f} M tokens/s)")  # fmt: skip
            rate = measure_hugging_face(length, options.rows, options.repeats)
            shown = f"{rate / 1e6:11.2f}" if rate else f"{'-':>11}"
            print(f"{length:8} {'HF':>9} {shown} {shown}")


if __name__ == "__main__":
    main()
