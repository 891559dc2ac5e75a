"""Training a vocabulary: the special pieces, repetition, the report, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm

from albert_jax.data.sources.document import ReadCounts
from albert_jax.data.sources.sources import ReadOptions, parts
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.sentencepiece import is_inner_digits_comma
from albert_jax.data.vocabularies.training import (
    USER_SYMBOLS,
    TrainingOptions,
    from_texts,
    sample,
    train,
)
from albert_jax.errors import ConfigError, DataError

WORDS = "the baker sold warm bread and sweet cakes to every child near old town bridge".split()


def write(path: Path, documents: int = 60) -> Path:
    lines = [
        " ".join(WORDS[(i * k + k) % len(WORDS)].capitalize() for k in range(1, 12)) + f" {i}."
        for i in range(documents)
    ]
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def test_special_pieces_and_repetition(tmp_path: Path) -> None:
    text = write(tmp_path / "text.txt")
    report = train([str(text)], str(tmp_path / "a"), TrainingOptions(vocab_size=50, seed=3))
    train([str(text)], str(tmp_path / "b"), TrainingOptions(vocab_size=50, seed=3))
    vocab = vocabulary.load(str(tmp_path / "a"))
    assert [vocab.id_to_token(i) for i in range(13)] == [
        "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", *USER_SYMBOLS,
    ]  # fmt: skip
    assert vocab.size == 50 and report["fingerprint"] == vocab.fingerprint
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert report["unknown_rate"] == 0 and report["bytes_per_token"] > 1


def test_second_run_does_nothing_and_other_inputs_are_refused(tmp_path: Path) -> None:
    text, out = write(tmp_path / "text.txt"), tmp_path / "v"
    first = train([str(text)], str(out), TrainingOptions(vocab_size=50))
    before = (out / "spiece.model").stat().st_mtime_ns
    assert train([str(text)], str(out), TrainingOptions(vocab_size=50)) == first
    assert (out / "spiece.model").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"other inputs \(vocab_size\)"):
        train([str(text)], str(out), TrainingOptions(vocab_size=49))
    write(text, 70)
    with pytest.raises(DataError, match=r"other inputs \(sources\)"):
        train([str(text)], str(out), TrainingOptions(vocab_size=50))


def test_a_small_text_supports_fewer_tokens_and_a_line_says_so(tmp_path: Path) -> None:
    text, lines = write(tmp_path / "text.txt"), []
    train([str(text)], str(tmp_path / "v"), TrainingOptions(vocab_size=5000), lines.append)
    size = vocabulary.load(str(tmp_path / "v")).size
    assert 20 < size < 5000 and f"the text supports {size} tokens" in lines[-1]
    train([str(text)], str(tmp_path / "x"), TrainingOptions(vocab_size=size), lines.append)
    assert vocabulary.load(str(tmp_path / "x")).size == size and "supports" not in lines[-1]
    with pytest.raises(DataError, match="give more than [0-9]+"):
        train([str(text)], str(tmp_path / "w"), TrainingOptions(vocab_size=20))
    with pytest.raises(ConfigError, match="at least 20"):
        train([str(text)], str(tmp_path / "w"), TrainingOptions(vocab_size=3))
    assert not (tmp_path / "w").exists()


def test_a_vocabulary_of_others_is_not_overwritten(tmp_path: Path) -> None:
    text, out = write(tmp_path / "text.txt"), tmp_path / "v"
    out.mkdir()
    (out / "spiece.model").write_bytes(b"another")
    with pytest.raises(DataError, match="holds another vocabulary"):
        train([str(text)], str(out), TrainingOptions(vocab_size=50))
    assert (out / "spiece.model").read_bytes() == b"another"
    with pytest.raises(ConfigError, match="name at least one file"):
        train([], str(tmp_path / "w"), TrainingOptions(vocab_size=50))


def test_every_token_of_text_without_spaces_is_a_word() -> None:
    rng = np.random.default_rng(0)
    genes = ["".join(rng.choice(list("acgt"), 300)) for _ in range(40)]
    vocab = from_texts(genes, 60)
    assert max(len(vocab.id_to_token(i)) for i in range(vocab.size)) > 2
    assert vocab.starts_word.all()


def test_digits_and_a_comma_inside_a_word_are_set_aside() -> None:
    texts = [f"in {i},000 and a{i},5 b{i}, {i * 7}, x{i % 10}, y{i % 10},5" for i in range(400)]
    vocab = from_texts(texts, 60)
    processor = spm.SentencePieceProcessor(model_proto=vocab.model)
    inner = [i for i in range(vocab.size) if is_inner_digits_comma(vocab.id_to_token(i))]
    assert inner == [i for i in range(vocab.size) if processor.is_unused(i)] and len(inner) > 3


def test_no_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n \n\n")
    with pytest.raises(DataError, match="no text was found"):
        train([str(text)], str(tmp_path / "v"), TrainingOptions(vocab_size=50))


def test_sample_is_seeded_and_of_the_size(tmp_path: Path) -> None:
    found = parts([str(write(tmp_path / "text.txt", 3000))], ReadOptions(), 20_000)
    assert len(found) > 3

    def draw(seed: int, size: int) -> list[str]:
        options = TrainingOptions(vocab_size=50, seed=seed, sample_bytes=size)
        drawn = sample(found, options, ReadCounts())
        return [document.text for document in drawn]

    assert draw(0, 40_000) == draw(0, 40_000) != draw(1, 40_000)
    assert 30_000 < sum(map(len, draw(0, 40_000))) < 50_000
    assert len(draw(0, 10**9)) == 3000


def test_many_small_files_give_a_whole_sample(tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"the file number {i} has some words.\n" * 10)
    found = parts([str(tmp_path / "*.txt")], ReadOptions())
    options = TrainingOptions(vocab_size=50, sample_bytes=60_000)
    drawn = sum(len(document.text) for document in sample(found, options, ReadCounts()))
    assert 60_000 < drawn < 100_000


def test_a_vocabulary_of_few_texts_has_all_their_characters() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    made = from_texts([text[i : i + 20] for i in range(0, 400, 20)] * 3, 200)
    assert 400 < made.size < 600
    assert made.unk_id not in made.encode([text])[0]
