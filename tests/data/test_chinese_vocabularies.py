"""Vocabularies for Chinese: characters and pieces in a vocab.txt, and text without spaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from albert_jax import cli
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.sentencepiece import SPACE, SentencePiece
from albert_jax.data.vocabularies.training import TrainingOptions, train
from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.errors import ConfigError, DataError
from albert_jax.model_io.tokenizer_json import tokenizer_files

PHRASES = "黑豹队的防守 职业生涯中的活跃领袖 革命性的公民不服从 他们身后有经验 国家橄榄球联盟 北京大学很好".split()


def write(folder: Path) -> str:
    documents = [
        f"{PHRASES[i % 6]}，{PHRASES[(i * i + 1) % 6]}！（{PHRASES[(i // 6) % 6]}GPT{i % 3}）。我说Café。"
        for i in range(200)
    ]
    (folder / "zh.txt").write_text("\n\n".join(documents), encoding="utf-8")
    return str(folder / "zh.txt")


def make(folder: Path, name: str, **options) -> vocabulary.Vocabulary:  # noqa: ANN003
    report = train([write(folder)], str(folder / name), TrainingOptions(language="zh", **options))
    assert report["fingerprint"]
    return vocabulary.load(str(folder / name))


def tokens(vocab: vocabulary.Vocabulary) -> list[str]:
    return [vocab.id_to_token(i) for i in range(vocab.size)]


def test_characters_are_the_most_frequent_ones(tmp_path):
    vocab = make(tmp_path, "v", kind="characters", vocab_size=30)
    assert isinstance(vocab, WordPiece) and vocab.size == 30
    assert tokens(vocab)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert "，" in tokens(vocab) and "##p" in tokens(vocab) and "g" in tokens(vocab)
    assert all(len(token.removeprefix("##")) == 1 for token in tokens(vocab)[5:])
    again = make(tmp_path, "w", kind="characters", vocab_size=30)
    assert again.fingerprint == vocab.fingerprint
    whole = make(tmp_path, "x", kind="characters", vocab_size=5000)
    assert 30 < whole.size < 5000
    ids, _ = whole.encode_flat(["他们在GPT，我说Café。"])
    assert (ids == whole.unk_id).sum() == 1  # 在 does not occur


def test_chinese_is_written_without_spaces(tmp_path):
    vocab = make(tmp_path, "v", kind="characters", vocab_size=5000)
    for text in ("我说gpt，北京大学。", "我 说"):
        assert vocab.decode(vocab.encode([text])[0].tolist()) == text.replace("我 说", "我说")


def test_cased_characters_keep_case_and_accents(tmp_path):
    vocab = make(tmp_path, "v", kind="characters", vocab_size=60, lower_case=False)
    assert "G" in tokens(vocab) and "##é" in tokens(vocab) and "g" not in tokens(vocab)
    assert not vocabulary.load(str(tmp_path / "v")).lower_case  # pyright: ignore


def test_pieces_of_words(tmp_path):
    lines = [f"the baker sold warm bread number {i}. Baking is bakery work." for i in range(100)]
    (tmp_path / "en.txt").write_text("\n\n".join(lines), encoding="utf-8")
    options = TrainingOptions(kind="wordpiece", vocab_size=70)
    for name in ("a", "b"):
        train([str(tmp_path / "en.txt")], str(tmp_path / name), options)
    assert (tmp_path / "a/vocab.txt").read_bytes() == (tmp_path / "b/vocab.txt").read_bytes()
    vocab = vocabulary.load(str(tmp_path / "a"))
    assert vocab.size == 70 and tokens(vocab)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert any(len(token.removeprefix("##")) > 2 for token in tokens(vocab)[5:])
    few = TrainingOptions(kind="wordpiece", vocab_size=20)
    with pytest.raises(DataError, match="give at least [0-9]+, or --kind characters"):
        train([str(tmp_path / "en.txt")], str(tmp_path / "c"), few)
    many = TrainingOptions(kind="wordpiece", vocab_size=5000)
    train([str(tmp_path / "en.txt")], str(tmp_path / "d"), many)
    assert 70 < vocabulary.load(str(tmp_path / "d")).size < 5000


def test_text_without_spaces_has_no_tokens_of_whole_phrases(tmp_path):
    vocab = make(tmp_path, "v", vocab_size=79)
    longest = max((token.lstrip(SPACE) for token in tokens(vocab)[5:]), key=len)
    assert 1 < len(longest) <= 4, longest
    (tmp_path / "kana.txt").write_text(
        "\n\n".join(
            f"これはとてもながいことばのならびです{'あいうえお'[i % 5]}" for i in range(99)
        ),
        encoding="utf-8",
    )
    options = TrainingOptions(vocab_size=32, language="ja")
    train([str(tmp_path / "kana.txt")], str(tmp_path / "w"), options)
    kana = tokens(vocabulary.load(str(tmp_path / "w")))
    assert 4 < max(map(len, kana[5:])) <= 8


def test_full_width_punctuation_survives_where_asked(tmp_path):
    plain = make(tmp_path, "plain", vocab_size=76)
    kept = make(tmp_path, "kept", vocab_size=82, keep_accents=True, keep_width=True)
    assert isinstance(kept, SentencePiece) and isinstance(plain, SentencePiece)
    text = "我说Café！（北京大学）Ａ，a"
    assert "，" in tokens(kept) and "！" in kept.decode(kept.encode([text])[0].tolist())
    assert "，" not in tokens(plain) and "！" not in plain.decode(plain.encode([text])[0].tolist())
    for vocab in (plain, kept):
        exported = Tokenizer.from_str(tokenizer_files(vocab, 64)["tokenizer.json"].decode())
        found = exported.encode(text, add_special_tokens=False).ids
        assert found == vocab.encode([text])[0].tolist()
    with pytest.raises(ConfigError, match="kept only where accents are"):
        TrainingOptions(vocab_size=100, keep_width=True)
    with pytest.raises(ConfigError, match="if and only if it keeps the case"):
        TrainingOptions(vocab_size=100, kind="characters", keep_accents=True)
    with pytest.raises(DataError, match=r"other inputs \(keep_width\)"):
        make(tmp_path, "kept", vocab_size=82, keep_accents=True)


def test_the_command_line_takes_the_kind(tmp_path, capsys):
    arguments = ["tokenizer", "train", "--text", write(tmp_path), "--language", "zh"]
    arguments += ["--vocab-size", "40", "--out", str(tmp_path / "v")]
    assert cli.main([*arguments, "--kind", "characters"]) == 0
    assert (tmp_path / "v/vocab.txt").read_text(encoding="utf-8").count("\n") == 40
    assert cli.main(arguments) != 0
    assert "other inputs (kind, " in capsys.readouterr().err
