"""Tokenizers against the golden ids of the original, for every string there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from albert_jax import protobuf_wire
from albert_jax.data.sources import tfrecord
from albert_jax.data.vocabularies import vocabulary
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.sentencepiece import SPACE, SentencePiece, starts_word
from albert_jax.data.vocabularies.wordpiece import WordPiece


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "tokenizer"


@pytest.fixture(scope="module")
def cases(folder: Path) -> list[dict]:
    found = json.loads((folder / "strings.json").read_text(encoding="utf-8"))
    assert found, f"{folder} has no cases"
    return found


def _unlike(cases: list[dict], field: str, results: list) -> list:
    return [
        (case["text"], case[field], result)
        for case, result in zip(cases, results, strict=True)
        if case[field] != result
    ]


@pytest.mark.parametrize(
    ("field", "rules"),
    [
        ("pre_lower", TextRules()),
        ("pre_cased", TextRules(lower_case=False)),
        ("pre_keepspace", TextRules(collapse_spaces=False)),
    ],
)
def test_preprocessing(cases: list[dict], field: str, rules: TextRules) -> None:
    texts = [case["text"] for case in cases]
    assert not _unlike(cases, field, [rules.apply(text) for text in texts])
    assert not _unlike(cases, field, rules.apply_all(texts))
    assert not _unlike(cases, field, [rules.apply_all([text])[0] for text in texts])


@pytest.mark.parametrize(
    ("field", "lower_case"), [("ids", True), ("encode_ids", True), ("ids_cased", False)]
)
def test_sentencepiece_ids(cases: list[dict], folder: Path, field: str, lower_case: bool) -> None:
    vocab = SentencePiece((folder / "spm.model").read_bytes(), lower_case=lower_case)
    texts = [case["text"] for case in cases]
    assert not _unlike(cases, field, [vocab.encode([text])[0].tolist() for text in texts])
    assert not _unlike(cases, field, [ids.tolist() for ids in vocab.encode(texts)])


@pytest.mark.parametrize(("field", "lower_case"), [("pieces", True), ("pieces_cased", False)])
def test_sentencepiece_spelling(
    cases: list[dict], folder: Path, field: str, lower_case: bool
) -> None:
    """Unknown tokens are spelled too."""
    vocab = SentencePiece((folder / "spm.model").read_bytes(), lower_case=lower_case)
    spelled = [[t.replace(" ", SPACE) for t in vocab.token_texts(case["text"])] for case in cases]
    assert not _unlike(cases, field, spelled)


@pytest.mark.parametrize(("field", "lower_case"), [("wp", True), ("wp_cased", False)])
def test_wordpiece_ids(cases: list[dict], folder: Path, field: str, lower_case: bool) -> None:
    vocab = WordPiece((folder / "wordpiece_vocab.txt").read_bytes(), lower_case=lower_case)
    ids = [found.tolist() for found in vocab.encode([case["text"] for case in cases])]
    assert not _unlike(cases, f"{field}_ids", ids)
    assert not _unlike(
        cases, f"{field}_tokens", [[vocab.id_to_token(i) for i in row] for row in ids]
    )


def _int64_feature(example: bytes, name: str) -> np.ndarray:
    """The values of an int64 feature of a tf.train.Example."""

    def inside(message: bytes, number: int) -> list[bytes]:
        return [value for found, value in protobuf_wire.fields(message) if found == number]

    (features,) = inside(example, 1)
    (feature,) = (
        inside(entry, 2)[0] for entry in inside(features, 1) if inside(entry, 1) == [name.encode()]
    )
    packed = b"".join(inside(inside(feature, 3)[0], 1))
    values, position = [], 0
    while position < len(packed):
        value, position = protobuf_wire.varint(packed, position)
        values.append(value)
    return np.array(values)


def test_word_starts_as_recorded_in_the_examples(folder: Path) -> None:
    """token_boundary of the original's examples, wherever it was not masked."""
    vocab = SentencePiece((folder / "spm.model").read_bytes())
    files = sorted((folder.parent / "data").glob("*.tfrecord"))
    assert files, "no examples"
    compared = 0
    for path in files:
        for record in tfrecord.records(str(path)):
            features = {
                name: _int64_feature(record, name)
                for name in ("input_ids", "input_mask", "token_boundary", "masked_lm_positions")
            }
            ids = features["input_ids"]
            known = features["input_mask"].astype(bool)
            known[features["masked_lm_positions"]] = False
            known &= ids > 4
            assert (vocab.starts_word[ids] == features["token_boundary"])[known].all()
            compared += int(known.sum())
    assert compared


def test_published_vocabulary_follows_the_rule_piece_by_piece(shared: Path) -> None:
    """Ids are preprocessing, SentencePiece and the digit rule, written here the long way."""
    model = shared / "data/tokenizer/albert-en-30k.spiece.model"
    vocab = vocabulary.load(str(model))
    assert isinstance(vocab, SentencePiece)
    processor = vocab._processor
    text = (shared / "data/corpus/xquad-contexts-de.txt").read_text(encoding="utf-8")
    books = shared / "data/corpus/books-en.txt"
    with open(books, encoding="utf-8") as file:
        text += file.read(300_000)
    lines = [line for line in text.split("\n") if line] + ["In 1,234, 5,6, and \u00b2, or 12,"]
    changed = 0
    for line, ids in zip(lines, vocab.encode(lines), strict=True):
        expected: list[str] = []
        pieces = processor.encode(TextRules().apply(line), out_type=str)
        for piece in pieces:
            if len(piece) > 1 and piece.endswith(",") and piece[-2].isdigit():
                digits = piece[:-1].replace(SPACE, "")
                expected += [*processor.encode(digits, out_type=str), ","]
            else:
                expected.append(piece)
        changed += expected != pieces
        assert ids.tolist() == [processor.piece_to_id(piece) for piece in expected], line
    assert changed > 10


@pytest.mark.parametrize(
    ("piece", "starts"),
    [
        (SPACE, True),
        (f"{SPACE}the", True),
        ("the", False),
        ("The", False),
        ("<pad>", True),
        (".", True),
        (".com", False),
        ("'", True),
        ("'s", True),
        ("=", True),
        ("12", True),
        ("\u00a3", True),
        ("\u4e2d", True),
        ("[MASK]", False),
    ],
)
def test_word_start_rule(piece: str, starts: bool) -> None:
    assert starts_word(piece) is starts
