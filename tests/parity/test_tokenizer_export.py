"""AutoTokenizer of an export against the vocabulary that training reads with."""

from __future__ import annotations

import io
import json
import unicodedata

import numpy as np
import pytest
import sentencepiece as spm

from albert_jax.config import ModelConfig
from albert_jax.data.vocabularies import vocabulary as vocabularies
from albert_jax.data.vocabularies.sentencepiece import SPACE, SPECIAL, SentencePiece
from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.export import huggingface
from albert_jax.model.init import init_params
from albert_jax.model_io import directories
from albert_jax.model_io.model import Model
from albert_jax.model_io.weights import default_config
from albert_jax.tasks.support.answer_spans import window_features
from albert_jax.tasks.support.squad_files import Answer, Question

transformers = pytest.importorskip("transformers", reason="needs the extra parity (transformers)")

CORPORA = {
    "books-en.txt": 600,
    "wikitext2-valid.txt": 600,
    "xquad-contexts-de.txt": 100,
    "xquad-contexts-ru.txt": 100,
    "xquad-contexts-zh.txt": 100,
}


def published(shared, **rules) -> SentencePiece:
    path = shared / "data" / "tokenizer" / "albert-en-30k.spiece.model"
    return SentencePiece(path.read_bytes(), **rules)


def exported(vocabulary, folder):
    """An untrained tiny model with this vocabulary, as AutoTokenizer reads it."""
    config = ModelConfig(
        vocab_size=vocabulary.size, embedding_size=4, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=1, intermediate_size=8, max_position_embeddings=512,
    )  # fmt: skip
    model = Model(default_config(config), init_params(config, 0), vocabulary, "memory")
    huggingface.export(model, str(folder))
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def tokenizer(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "x"
    return exported(published(shared), folder), published(shared), folder


def differing(tokenizer, vocabulary, texts) -> list[str]:
    """Texts without special names whose ids differ."""
    texts = [t for t in texts if not any(name in t for name in SPECIAL)]
    assert texts
    ours = vocabulary.encode(texts)
    theirs = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [t for t, a, b in zip(texts, ours, theirs, strict=True) if a.tolist() != b]


def lines(shared, name: str) -> list[str]:
    text = (shared / "data" / "corpus" / name).read_text()
    return [line for line in text.split("\n") if line.strip()][: CORPORA[name]]


def golden_strings(golden) -> list[str]:
    rows = json.loads((golden / "tokenizer" / "strings.json").read_text())
    return [row["text"] for row in rows]


@pytest.mark.parity
@pytest.mark.parametrize("name", CORPORA)
def test_real_lines(tokenizer, shared, name, record_property):
    bad = differing(tokenizer[0], tokenizer[1], lines(shared, name))
    record_property("tokenizer.json, lines of corpora", len(bad))
    print(f"tokenizer.json, lines of corpora: {len(bad)} (bound 0)")
    assert not bad


@pytest.mark.parity
def test_golden_strings(tokenizer, golden, record_property):
    bad = differing(tokenizer[0], tokenizer[1], golden_strings(golden))
    record_property("tokenizer.json, golden strings", len(bad))
    print(f"tokenizer.json, golden strings: {len(bad)} (bound 0)")
    assert not bad


@pytest.mark.parity
def test_golden_vocabulary(golden, tmp_path):
    """With pieces "digits," inside words the ids may differ where such a piece is met only."""
    vocabulary = vocabularies.load(str(golden / "tokenizer" / "spm.model"))
    found = exported(vocabulary, tmp_path / "x")
    from albert_jax.model_io.tokenizer_json import inexpressible_tokens

    inside = inexpressible_tokens(vocabulary)
    bad = differing(found, vocabulary, golden_strings(golden))
    cleaned = [vocabulary.rules.apply(text) for text in bad]
    assert all(any(piece in text for piece in inside) for text in cleaned)
    assert not inside or "Exception:" in (tmp_path / "x" / "README.md").read_text()


@pytest.mark.parity
@pytest.mark.parametrize(("lower", "accents"), [(False, True), (False, False), (True, True)])
def test_cased_vocabularies(shared, golden, tmp_path, lower, accents):
    vocabulary = published(shared, lower_case=lower, keep_accents=accents)
    found = exported(vocabulary, tmp_path / "x")
    texts = lines(shared, "xquad-contexts-de.txt") + golden_strings(golden)
    # A letter under several loose marks is composed by another rule there.
    bad = [t for t in differing(found, vocabulary, texts) if "\u0303" not in t]
    assert not bad
    again = directories.read(tmp_path / "x").vocabulary
    assert again is not None and again.fingerprint == vocabulary.fingerprint


@pytest.mark.parity
def test_pairs_types_and_masks(tokenizer):
    found, vocabulary, _ = tokenizer
    first, second = vocabulary.encode(["the (old) cat.", "it sat - there."])
    row = found("the (old) cat.", "it sat - there.")
    cls, sep = vocabulary.cls_id, vocabulary.sep_id
    assert row["input_ids"] == [cls, *first.tolist(), sep, *second.tolist(), sep]
    assert row["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert found.model_max_length == 512
    assert list(found.all_special_ids) and len(set(found.all_special_ids)) == 5
    spaced, tight = found("a [MASK] b")["input_ids"], found("a [MASK]. b")["input_ids"]
    pieces = [found.convert_ids_to_tokens(ids) for ids in (spaced, tight)]
    assert pieces[0] == ["[CLS]", f"{SPACE}a", "[MASK]", f"{SPACE}b", "[SEP]"]
    assert pieces[1] == ["[CLS]", f"{SPACE}a", "[MASK]", ".", f"{SPACE}b", "[SEP]"]


@pytest.mark.parity
def test_punctuation_can_be_masked(tokenizer):
    torch = pytest.importorskip("torch", reason="needs the extra parity (torch)")
    found, _, _ = tokenizer
    torch.manual_seed(0)
    collator = transformers.DataCollatorForLanguageModeling(found, mlm_probability=0.5)
    row = found("(" * 100 + "." * 100 + "-" * 100)
    batch = collator([row])
    chosen = (batch["labels"] != -100).sum().item()
    assert 100 < chosen < 200


@pytest.mark.parity
def test_fill_mask_pipeline_and_saving_again(tokenizer, tmp_path):
    found, _, folder = tokenizer
    fill = transformers.pipeline("fill-mask", model=str(folder))
    guesses = fill("the cat sat on the [MASK].")
    assert len(guesses) == 5 and guesses[0]["sequence"].startswith("the cat sat on the")
    found.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again", local_files_only=True)
    text = "In 2000, (well) it's “5-time” 3,000."
    assert again(text)["input_ids"] == found(text)["input_ids"]
    assert found.decode(found("the (old) cat")["input_ids"], skip_special_tokens=True)


@pytest.mark.parity
def test_every_piece_keeps_its_id(tokenizer):
    found, vocabulary, _ = tokenizer
    assert len(found) == vocabulary.size
    some = np.random.default_rng(0).integers(0, vocabulary.size, 500).tolist()
    assert found.convert_ids_to_tokens(some) == [vocabulary.id_to_token(i) for i in some]


KOREAN = [f"\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 {word} \uc785\ub2c8\ub2e4" for word in
          ("\uc624\ub298", "\ub0b4\uc77c", "\ud559\uad50", "\uc0ac\ub78c", "\uc2dc\uac04")]  # fmt: skip
BENGALI = [
    "\u0995\u09cb\u09a5\u09be\u09df \u09af\u09be\u099a\u09cd\u099b",
    "\u0986\u09ae\u09bf \u09a4\u09cb\u09ae\u09be\u0995\u09c7",
]


@pytest.mark.parity
@pytest.mark.parametrize("accents", [False, True])
@pytest.mark.parametrize("texts", [KOREAN, BENGALI])
def test_scripts_that_are_taken_apart_and_composed(tmp_path, texts, accents):
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 50), model_writer=out, vocab_size=60, minloglevel=3,
        hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )  # fmt: skip
    vocabulary = SentencePiece(out.getvalue(), keep_accents=accents)
    theirs = exported(vocabulary, tmp_path / "x")
    apart = [unicodedata.normalize("NFD", text) for text in texts]
    assert not differing(theirs, vocabulary, [*texts, *apart])
    asked = Question("f", "q", texts[0], texts[0], (Answer(texts[0][:2], 0),))
    assert window_features(vocabulary, [asked], 64, doc_stride=8, max_query_length=8)


@pytest.mark.parity
@pytest.mark.parametrize("lower", [True, False])
def test_wordpiece(golden, shared, tmp_path, lower):
    content = (golden / "tokenizer" / "wordpiece_vocab.txt").read_bytes()
    vocabulary = WordPiece(content, lower_case=lower)
    found = exported(vocabulary, tmp_path / "x")
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    texts = golden_strings(golden) + lines(shared, "xquad-contexts-zh.txt")
    texts = [t for t in texts if not any(name in t for name in names)]
    assert not differing(found, vocabulary, texts)
    assert (tmp_path / "x" / "vocab.txt").is_file()
