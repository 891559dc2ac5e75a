"""Preparation beside the bare SentencePiece call, in one run: medians and ratios.

    python benchmarks/prepare.py --text FILE --model spiece.model [--megabytes 8] [--repeats 5]

Lines: the batch call of SentencePiece on cleaned text; our encoding of the raw sentences
(preprocessing, segmentation, digit rule, ids); Hugging Face tokenizers with the same model, if
transformers is installed; files to shards with 1 and 2 workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable

from albert_jax.data import prepare, sources, vocabulary
from albert_jax.data.sentencepiece import SentencePiece
from albert_jax.data.sentences import sentences


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

    def shards(workers: int) -> Callable[[], object]:
        def run() -> None:
            out = os.path.join(work, "out")
            shutil.rmtree(out, ignore_errors=True)
            prepare.prepare([text], vocab, out, workers=workers, part_bytes=len(content) // 4)

        return run

    rows: list[tuple[str, Callable[[], object]]] = [
        ("SentencePiece encode, lists", lambda: bare.encode(cleaned, num_threads=1)),
        (
            "SentencePiece encode, numpy",
            lambda: bare.encode(cleaned, out_type="numpy", num_threads=1),
        ),
        ("ours, raw sentences to ids", lambda: vocab.encode_flat(raw)),
        ("files to shards, 1 worker", shards(1)),
        ("files to shards, 2 workers", shards(2)),
    ]
    fast = _hugging_face(vocab)
    if fast is not None:
        rows.append(("Hugging Face tokenizers", lambda: fast(raw)))
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


def _hugging_face(vocab: SentencePiece) -> Callable[[list[str]], object] | None:
    """The compiled tokenizer on one core, with the same pieces and scores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        return None
    processor = vocab._processor
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(vocab.size)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=vocab.unk_id))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return lambda texts: [e.ids for e in tokenizer.encode_batch_fast(texts)]


if __name__ == "__main__":
    main()
