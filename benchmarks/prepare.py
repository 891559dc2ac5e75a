"""Preparation beside the bare SentencePiece call, in one run: medians and ratios.

    python benchmarks/prepare.py --text FILE --model spiece.model [--megabytes 8] [--repeats 5]

Lines: the batch call of SentencePiece on cleaned text; our encoding of the raw sentences
(preprocessing, segmentation, digit rule, ids); files to shards with 1 and 2 workers; Hugging Face
tokenizers with the same model; and Hugging Face's way from files to rows of 512, as the masked
language example of Transformers does it (tokenise, then group; needs datasets and transformers),
with 1 and 2 processes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from albert_jax.data.prepare import prepare, steps
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.sources import sources
from albert_jax.data.sources.sentences import sentences
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.sentencepiece import SentencePiece


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    vocab = vocabulary.load(asked.model)
    assert isinstance(vocab, SentencePiece)
    work = tempfile.mkdtemp()
    text = os.path.join(work, "text.txt")
    with open(asked.text, "rb") as source, open(text, "wb") as copy:
        content = source.read(int(asked.megabytes * 1e6))
        copy.write(content[: content.rfind(b"\n") + 1])
    raw = [s for d in sources.documents([text]) for s in sentences(d.text)]
    cleaned = vocab.rules.apply_all(raw)
    size = sum(len(line.encode()) for line in cleaned)
    import sentencepiece

    bare = sentencepiece.SentencePieceProcessor(model_proto=vocab.model)

    # As many sentences in one call as preparation has.
    cuts = np.flatnonzero(np.diff(np.cumsum(list(map(len, raw))) // steps.BATCH_SIZE)) + 1
    batches = [raw[a:b] for a, b in itertools.pairwise([0, *cuts.tolist(), len(raw)])]

    def forget_words() -> None:
        """Empties the caches of words, which a preparation begins without."""
        vocab.__dict__.pop("_words", None)
        steps._vocabulary.cache_clear()

    def encode() -> object:
        forget_words()
        return [vocab.encode_flat(batch) for batch in batches]

    def shards(workers: int) -> Callable[[], object]:
        def run() -> None:
            forget_words()
            out = os.path.join(work, "out")
            shutil.rmtree(out, ignore_errors=True)
            options = PrepareOptions(workers=workers, part_bytes=len(content) // 4)
            prepare.prepare([text], vocab, out, options)

        return run

    rows: list[tuple[str, Callable[[], object]]] = [
        ("SentencePiece encode, lists", lambda: bare.encode(cleaned, num_threads=1)),
        (
            "SentencePiece encode, numpy",
            lambda: bare.encode(cleaned, out_type="numpy", num_threads=1),
        ),
        ("ours, raw sentences to ids", encode),
        ("files to shards, 1 worker", shards(1)),
        ("files to shards, 2 workers", shards(2)),
    ]
    fast = _hugging_face(vocab)
    rows.append(("Hugging Face tokenizers", lambda: [e.ids for e in fast.encode_batch_fast(raw)]))
    for processes in (1, 2):
        grouped = _tokenise_and_group(fast, text, os.path.join(work, "cache"), processes)
        if grouped is not None:
            rows.append((f"Hugging Face files to rows, {processes}", grouped))
    times: dict[str, list[float]] = {name: [] for name, _ in rows}
    for _ in range(asked.repeats):  # in turns, so that other load meets all alike
        for name, call in rows:
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    base = statistics.median(times[rows[0][0]])
    print(f"{size / 1e6:.1f} MB of cleaned text, {len(raw):,} sentences, {asked.repeats} repeats")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:32s} {size / median / 1e6:7.1f} MB/s   time ratio {median / base:6.2f}")
    shutil.rmtree(work)


def _hugging_face(vocab: SentencePiece) -> Any:
    """The compiled tokenizer on one core, with the same pieces and scores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    processor = vocab._processor
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(vocab.size)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=vocab.unk_id))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return tokenizer


def _tokenise_and_group(
    tokenizer: Any, text: str, cache: str, processes: int
) -> Callable[[], object] | None:
    """From a text file to an Arrow file of rows of 512, as in run_mlm.py of Transformers."""
    try:
        import datasets
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        return None
    datasets.disable_progress_bars()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")

    def tokenise(rows: dict[str, list]) -> Any:
        return fast(rows["text"], return_special_tokens_mask=True)

    def group(rows: dict[str, list]) -> dict[str, list]:
        joined = {name: list(itertools.chain(*values)) for name, values in rows.items()}
        total = len(joined["input_ids"]) // 512 * 512
        return {
            name: [values[i : i + 512] for i in range(0, total, 512)]
            for name, values in joined.items()
        }

    def run() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        rows = datasets.load_dataset("text", data_files=text, split="train", cache_dir=cache)
        options = {"batched": True, "num_proc": processes if processes > 1 else None}
        rows = rows.map(tokenise, remove_columns=["text"], **options)
        rows.map(group, **options)

    return run


if __name__ == "__main__":
    main()
