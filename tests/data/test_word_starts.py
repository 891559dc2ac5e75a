"""Words of Chinese text: where they begin among tokens that do not show them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.config import ObjectiveConfig, PhaseConfig
from albert_jax.data.batches.builder import BatchBuilder
from albert_jax.data.corpus.corpus import Corpus
from albert_jax.data.prepare import word_segmentation
from albert_jax.data.prepare.plan import PrepareOptions
from albert_jax.data.prepare.prepare import prepare
from albert_jax.data.vocabularies import symbols
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.wordpiece import WordPiece, basic_tokenize
from albert_jax.errors import ConfigError
from tests.data.made import digest

TOKENS = """[PAD] [UNK] [CLS] [SEP] [MASK] 我 爱 北 京 天 安 门 ， 。 ！ 很 好 的 元 说 “ ” 大 学 gp ##t ##4 caf ##e
don ' t 3 . 14 c + a ##b b 2008 年 ab""".split()
VOCAB = WordPiece("\n".join(TOKENS).encode())


def borders(text: str, how: word_segmentation.Words) -> str:
    """The tokens of a text with a bar before each word."""
    encoded = word_segmentation.encode([text], np.array([1]), how, VOCAB)
    assert encoded.word_starts is not None and len(encoded.word_starts) == len(encoded.ids)
    tokens = [VOCAB.id_to_token(int(id)) for id in encoded.ids]
    return " ".join("|" * bool(s) + t for t, s in zip(tokens, encoded.word_starts, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我爱北京天安门！", "|我 |爱 |北 京 |天 安 门 |！"),
        ("我说“北京很好”，", "|我 |说 |“ |北 京 |很 |好 |” |，"),
        ("GPT4很好", "|gp ##t ##4 |很 |好"),
        ("Café很好", "|caf ##e |很 |好"),  # jieba has a border before the accent
        ("北京😀大学", "|北 京 |[UNK] |大 学"),
        ("北京鑫鑫大学", None),
        ("3.14元", "|3 . 14 |元"),
        ("北\u200b京 大\u3000学", None),  # a character that is dropped, and white space
        ("", ""),
    ],
)
def test_words_of_jieba(text, expected):
    pytest.importorskip("jieba", reason="jieba (extra zh) is not installed")
    shown = borders(text, "jieba")
    assert expected is None or shown == expected
    assert shown.replace("|", "").split() == [
        VOCAB.id_to_token(int(i)) for i in VOCAB.encode([text])[0]
    ]


def test_words_between_spaces():
    assert borders("我 爱 北京 天安门 ！", "spaces") == "|我 |爱 |北 京 |天 安 门 |！"
    assert borders("  北京\u3000\n大学  ", "spaces") == "|北 京 |大 学"
    assert borders("ab gpt4 C++ 2008年", "spaces") == "|ab |gp ##t ##4 |c + + |2008 年"
    assert borders("北京，ab", "spaces") == "|北 京 ， ab"


@given(st.text())
def test_every_character_is_cleaned_alone(text):
    for lower_case in (False, True):
        assert len(basic_tokenize(text, lower_case)) == sum(
            len(basic_tokenize(c, lower_case)) for c in text
        )


@given(st.lists(st.text(max_size=20), max_size=4))
def test_ids_are_those_without_words_and_places_ascend(texts):
    ids, lengths, begins = VOCAB.encode_with_offsets(texts)
    expected, counts = VOCAB.encode_flat(texts)
    assert ids.tolist() == expected.tolist() and lengths.tolist() == counts.tolist()
    for text, part in zip(texts, np.split(begins, np.cumsum(lengths)[:-1]), strict=False):
        assert (np.diff(part) >= 0).all() and all(0 <= begin < len(text) for begin in part)
    found = word_segmentation.encode(texts, np.array([len(texts)]), "spaces", VOCAB)
    assert found.ids.tolist() == expected.tolist()


def text_file(folder: Path, segmented: bool = False) -> str:
    lines = ["我爱北京天安门！", "北京大学很好。", "我说“大学很好”。"]
    between = " " if segmented else ""
    documents = [
        f"{lines[i % 3]}{lines[(i + 1) % 3]}{'好' * (i % 7)}，{'我爱' * (i // 7)}。"
        for i in range(60)
    ]
    (folder / "t.txt").write_text("\n\n".join(between.join(d) for d in documents), encoding="utf-8")
    return str(folder / "t.txt")


def make(folder: Path, name: str, vocab=VOCAB, **options) -> Corpus:  # noqa: ANN001, ANN003
    spec = text_file(folder)
    options = {"language": "zh", "min_characters": 5, "workers": 1, **options}
    prepare([spec], vocab, str(folder / name), PrepareOptions(**options))
    return Corpus.open(folder / name)


def masked_alone(batch: dict, first: int, second: int) -> int:
    """How often one token of a pair in the text of a batch is masked and the other is not."""
    text, used = batch["input_ids"].copy(), batch["mlm_weights"] > 0
    places, masked = (np.nonzero(used)[0], batch["mlm_positions"][used]), np.zeros(text.shape, bool)
    text[places], masked[places] = batch["mlm_labels"][used], True
    pairs = (text[:, :-1] == first) & (text[:, 1:] == second)
    return int((pairs & (masked[:, :-1] != masked[:, 1:])).sum())


def test_whole_words_are_masked(tmp_path):
    pytest.importorskip("jieba", reason="jieba (extra zh) is not installed")
    with_, without = make(tmp_path, "with", words="jieba"), make(tmp_path, "without")
    assert with_.columns.word_starts and not without.columns.word_starts
    windows = range(with_.num_windows)
    ids, starts, _ = with_.tokens(windows)
    assert ids.tolist() == without.ids(windows).tolist() and starts is not None
    north, capital = TOKENS.index("北"), TOKENS.index("京")
    assert starts[ids == north].all() and not starts[ids == capital].any()
    phase = PhaseConfig(
        sequence_length=32,
        batch_size=64,
        objective=ObjectiveConfig(mask_unit="word", mask_rate=0.3),
    )
    rows = [
        BatchBuilder([c], VOCAB, phase, seed=0, phase_index=0).batch(0, np.arange(64))
        for c in (with_, without)
    ]
    halves = [masked_alone(batch, north, capital) for batch in rows]
    assert halves[0] == 0 < halves[1]
    make(tmp_path, "two", words="jieba", workers=2, part_bytes=2000)
    make(tmp_path, "one", words="jieba", part_bytes=2000)
    assert digest(str(tmp_path / "one")) == digest(str(tmp_path / "two"))


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    bare = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    with pytest.raises(ConfigError, match="words spaces needs a WordPiece vocabulary"):
        make(tmp_path, "p", bare, words="spaces")
    with pytest.raises(ConfigError, match="words spaces needs a WordPiece vocabulary"):
        make(tmp_path, "p", symbols.from_spec("plbert"), words="spaces")
    np.save(tmp_path / "rows.npy", np.full((4, 9), 7))
    with pytest.raises(ConfigError, match="token ids have a column word_starts"):
        prepare(
            [f"ids:{tmp_path}/rows.npy"], VOCAB, str(tmp_path / "p"), PrepareOptions(words="spaces")
        )
    make(tmp_path, "p", words="spaces")
    for other in ({}, {"words": "jieba"}):
        if other:
            pytest.importorskip("jieba", reason="jieba (extra zh) is not installed")
        with pytest.raises(Exception, match=r"other inputs \((columns, )?words\)"):
            make(tmp_path, "p", **other)

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[zh\]'"):
        make(tmp_path, "q", words="jieba")


def test_jieba_leaves_no_file_behind(tmp_path, monkeypatch):
    pytest.importorskip("jieba", reason="jieba (extra zh) is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    word_segmentation._jieba.cache_clear()
    assert list(word_segmentation._jieba()("我爱北京天安门")) == ["我", "爱", "北京", "天安门"]
    assert not list(tmp_path.iterdir())


def test_a_real_text(tmp_path):
    pytest.importorskip("jieba", reason="jieba (extra zh) is not installed")
    path = f"{os.environ.get('ALBERT_JAX_SHARED')}/data/corpus/xquad-contexts-zh.txt"
    if not os.path.isfile(path):
        pytest.skip("the Chinese corpus is not there")
    text = Path(path).read_text(encoding="utf-8")
    characters = sorted({c for c in basic_tokenize(text, True) if not c.isspace()})
    vocab = WordPiece("\n".join([*TOKENS[:5], *characters]).encode())
    prepare([path], vocab, str(tmp_path / "p"), PrepareOptions(words="jieba", language="zh"))
    ids, starts, _ = (corpus := Corpus.open(tmp_path / "p")).tokens(range(1))
    assert starts is not None and 1.5 < len(ids) / starts.sum() < 1.9
    [shown] = [corpus.vocabulary().decode(ids[:40].tolist())]
    assert shown and sys.modules["jieba"]
