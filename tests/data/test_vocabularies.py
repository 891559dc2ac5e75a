"""Vocabularies: what they say of their pieces, saving and loading, and files that are none."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_jax.data.vocabularies import vocabulary, word_cache
from albert_jax.data.vocabularies.id_range import IdRange
from albert_jax.data.vocabularies.sentencepiece import SPACE, SentencePiece
from albert_jax.data.vocabularies.wordpiece import WordPiece, basic_tokenize
from albert_jax.errors import AlbertError, DataError

SENTENCES = [
    f"the baker sold {n},{n} loaves, {n} rolls, and 1{n}, then rested" for n in range(40)
] * 5


def train(**changed: object) -> bytes:
    out = io.BytesIO()
    options: dict = {
        "vocab_size": 60, "pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1,
        "control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "minloglevel": 3, **changed,
    }  # fmt: skip
    spm.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


def long_way(vocab: SentencePiece, text: str) -> list[int]:
    """The original's way, over pieces."""
    processor = vocab._processor
    pieces: list[str] = []
    for piece in processor.encode(vocab.rules.apply(text), out_type=str):
        if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
            pieces += [*processor.encode(piece[:-1].replace(SPACE, ""), out_type=str), ","]
        else:
            pieces.append(piece)
    return [processor.piece_to_id(piece) for piece in pieces]


def test_ids_are_those_of_the_long_way(model: bytes) -> None:
    texts = [
        *SENTENCES[:40],
        "",
        "3,",
        "1,2,3",
        "[MASK] [CLS]",
        "\u0663, \u0664,\u0665,",
        "a\nb 7,",
    ]
    for lower_case in (True, False):
        vocab = SentencePiece(model, lower_case=lower_case)
        ids, lengths = vocab.encode_flat(texts)
        assert ids.dtype == np.int32 and len(lengths) == len(texts)
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for text, one, part in zip(texts, vocab.encode(texts), parts, strict=True):
            assert one.tolist() == part.tolist() == long_way(vocab, text), text
    assert vocab.encode([]) == []


TEXTS = st.lists(
    st.text(st.sampled_from("bakers 017,.[] \u00e9\u0301\u3000\t\x1c\u597d"), max_size=24)
)


@given(TEXTS)
@settings(deadline=None)  # A busy machine is no failure.
def test_word_by_word_is_text_by_text(model: bytes, texts: list[str]) -> None:
    vocab = SentencePiece(model)
    assert vocab._words is not None
    ids, lengths = vocab.encode_flat(texts)
    whole, counts = vocab._segment(vocab.rules.apply_all(texts))
    np.testing.assert_array_equal(ids, whole)
    np.testing.assert_array_equal(lengths, counts)


def test_a_full_cache_begins_anew(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = SentencePiece(model)
    wanted = [vocab.encode([text])[0].tolist() for text in SENTENCES[:40]]
    monkeypatch.setattr(word_cache, "MAX_CHARACTERS", 20)
    for _ in range(2):
        assert [vocab.encode([text])[0].tolist() for text in SENTENCES[:40]] == wanted
        assert vocab._words is not None and sum(map(len, vocab._words._numbers)) <= 20


def test_where_words_do_not_stand_alone_texts_are_segmented_whole() -> None:
    across = SentencePiece(train(split_by_whitespace=False))
    assert any(SPACE in piece[1:] for piece in across._tokens) and across._words is None
    counting = SentencePiece(train(remove_extra_whitespaces=False))
    assert counting._words is None
    ids = across.encode(["the baker sold 1,1 loaves"])[0].tolist()
    assert ids == long_way(across, "the baker sold 1,1 loaves")


def test_digit_rule_changes_something_here(model: bytes) -> None:
    vocab = SentencePiece(model)
    assert vocab._digits_comma


def test_no_comma_in_the_vocabulary() -> None:
    without = [line.replace(",", "") for line in SENTENCES]
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(without), model_writer=out, vocab_size=50, pad_id=0, unk_id=1,
        bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], minloglevel=3,
    )  # fmt: skip
    vocab = SentencePiece(out.getvalue())
    for text in ("1,2,", "\u0663,", "\u0663\u0664, the"):
        assert vocab.encode([text])[0].tolist() == long_way(vocab, text)


def test_tables(model: bytes) -> None:
    vocab = SentencePiece(model)
    assert (vocab.pad_id, vocab.unk_id, vocab.cls_id, vocab.sep_id, vocab.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    assert vocab.token_bytes[:5].tolist() == [0, 1, 0, 0, 0]
    ids = vocab.encode(["the baker"])[0]
    assert vocab.token_bytes[ids].sum() == len(" the baker")
    assert vocab.starts_word[ids[0]] and vocab.starts_word.shape == (vocab.size,)
    assert vocab.decode([2, *ids.tolist(), 3]).startswith("[CLS] the baker")


def test_saved_and_loaded(model: bytes, tmp_path: Path) -> None:
    for i, vocab in enumerate(
        [
            SentencePiece(model, lower_case=False, keep_accents=True),
            WordPiece(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n", lower_case=False),
            IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3),
        ]
    ):
        vocabulary.save(vocab, str(tmp_path / str(i)))
        again = vocabulary.load(str(tmp_path / str(i)))
        assert type(again) is type(vocab) and again.fingerprint == vocab.fingerprint
        assert again.files() == vocab.files()
        assert (again.token_bytes == vocab.token_bytes).all()
    # The main file alone is read with the settings beside it.
    named = vocabulary.load(str(tmp_path / "0" / "spiece.model"))
    assert named.fingerprint == vocabulary.load(str(tmp_path / "0")).fingerprint


def test_fingerprint_knows_the_settings(model: bytes) -> None:
    found = {
        SentencePiece(model, lower_case=a, keep_accents=b).fingerprint
        for a in (False, True)
        for b in (False, True)
    }
    assert len(found) == 4


def test_folders_of_others(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(model)
    assert vocabulary.load(str(tmp_path)).fingerprint == SentencePiece(model).fingerprint
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    expected = SentencePiece(model, lower_case=False).fingerprint
    assert vocabulary.load(str(tmp_path)).fingerprint == expected
    (tmp_path / "spiece.model").unlink()
    with pytest.raises(DataError, match="holds no vocabulary.json"):
        vocabulary.load(str(tmp_path))
    with pytest.raises(DataError, match="no vocabulary there"):
        vocabulary.load(str(tmp_path / "nothing"))


def test_damaged_models_are_one_line(model: bytes) -> None:
    rng = random.Random(0)
    damaged = [b"", b"not a model", bytes(1000), rng.randbytes(5000)]
    damaged += [model[: rng.randrange(len(model))] for _ in range(20)]
    for _ in range(100):
        flipped = bytearray(model)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        try:
            SentencePiece(content, where="m.model").encode(["the baker"])
        except AlbertError as error:
            refused += 1
            assert isinstance(error, DataError)
            assert "m.model" in str(error) and "\n" not in str(error)
    assert refused > 20


def test_special_pieces_missing_or_elsewhere() -> None:
    with pytest.raises(DataError, match=r"\[CLS\] is 3, \[SEP\] is 2"):
        SentencePiece(train(control_symbols=["[SEP]", "[CLS]", "[MASK]"]))
    with pytest.raises(DataError, match=r"\[MASK\] is missing"):
        SentencePiece(train(control_symbols=["[CLS]", "[SEP]"]))


def test_wordpiece_words() -> None:
    assert basic_tokenize("Caf\u00e9, \u4e2d\u6587!", True).split() == [
        "cafe",
        ",",
        "\u4e2d",
        "\u6587",
        "!",
    ]
    assert basic_tokenize("Caf\u00e9", False) == "Caf\u00e9"
    vocab = WordPiece("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nab\n##c\n\u4e2d\n".encode())
    ids = vocab.encode(["ABC \u4e2dabx", "", "a" * 201])
    assert [row.tolist() for row in ids] == [[5, 6, 7, 1], [], [1]]
    assert vocab.starts_word.tolist() == [True] * 6 + [False, True]
    assert vocab.token_bytes.tolist() == [0, 1, 0, 0, 0, 2, 1, 3]
    assert vocab.decode([5, 6, 7, 5]) == "abc\u4e2dab"
    assert vocab.token_texts("ABC \u4e2dabx,b") == [" ab", "c", " \u4e2d", " abx", " ,", " b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", r"lacks \[PAD\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", "line 6: 'a' occurs twice"),
        (b"\xff", "invalid UTF-8 at byte 0"),
    ],
)
def test_bad_wordpiece(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        WordPiece(content)


def test_id_range() -> None:
    vocab = IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    assert vocab.unk_id == -1 and vocab.decode([1, 9]) == "[CLS] 9"
    assert vocab.token_bytes.sum() == 26 and vocab.starts_word.all()
    with pytest.raises(DataError, match="ids without text"):
        vocab.encode(["a"])
    with pytest.raises(DataError, match="outside the vocabulary of 30"):
        IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=30)
    with pytest.raises(DataError, match="must differ"):
        IdRange(30, pad_id=0, cls_id=1, sep_id=2, mask_id=2)
