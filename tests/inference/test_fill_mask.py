"""Guesses behind masks: the right places, the right numbers, clear refusals."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from albert_jax import api
from albert_jax.commands.fill_mask import table
from albert_jax.errors import CheckpointError, DataError
from albert_jax.inference.fill_mask import Candidate, encode_masked, fill_mask, most_probable
from tests import tiny_models

MODEL = tiny_models.model()
VOCABULARY = MODEL.vocabulary
BARE = [VOCABULARY.id_to_token(i) for i in range(VOCABULARY.size)].index("\u2581")


def brute_force(ids: list[int], place: int) -> np.ndarray:
    """Probabilities [V] at one place of one row without padding."""
    row = np.array([ids], np.int32)
    batch = {
        "input_ids": row,
        "token_type_ids": np.zeros_like(row),
        "segment_ids": np.ones_like(row),
        "positions": np.arange(row.size, dtype=np.int32)[None],
    }
    hidden = api.encode(MODEL.params, MODEL.config, batch)
    logits = np.asarray(
        api.mlm_logits(MODEL.params, MODEL.config, hidden, np.array([[place]])), np.float64
    )[0, 0]
    return np.exp(logits) / np.exp(logits).sum()


def test_probabilities_equal_those_of_the_row_alone() -> None:
    ids = [2, *VOCABULARY.encode(["the file is"])[0].tolist(), 4]
    place = len(ids) - 1
    ids += [*VOCABULARY.encode(["in the folder"])[0].tolist(), 3]
    expected = brute_force(ids, place)
    # Texts of other lengths in the same call must not matter.
    texts = ["[MASK] file", "The file is [MASK] in the folder", "a [MASK] " + "file " * 12]
    found = fill_mask(MODEL, texts, top_k=6)[1]
    assert len(found) == 1 and len(found[0]) == 6
    for candidate in found[0]:
        assert candidate.probability == pytest.approx(expected[candidate.id], rel=1e-4)
    allowed = np.argsort(-expected)
    assert [c.id for c in found[0]] == [i for i in allowed if i > 4 and i != BARE][:6]


def test_every_mask_of_every_text_is_answered_in_order() -> None:
    texts = ["[MASK] file [MASK] the [MASK]", "the [MASK]"] * 20
    found = fill_mask(MODEL, texts, top_k=2)
    assert [len(masks) for masks in found] == [3, 1] * 20
    assert found[0] == found[38] and found[1] == found[39]
    assert found[0][0] != found[0][1]


@pytest.mark.parametrize(
    ("part", "expected"), [(".", "file."), (", not", "file, not"), (" is", "file is"), ("", "file")]
)
def test_what_follows_a_mask_is_cut_as_in_running_text(part: str, expected: str) -> None:
    word = VOCABULARY.encode(["file"])[0]
    whole = VOCABULARY.encode([expected])[0]
    ids = encode_masked("the [MASK]" + part, VOCABULARY)
    mask = int(np.flatnonzero(ids == VOCABULARY.mask_id)[0])
    assert ids[mask + 1 :].tolist() == whole[word.size :].tolist()


def test_special_tokens_are_never_offered() -> None:
    [[candidates]] = fill_mask(MODEL, ["the [MASK]"], top_k=64)
    assert {c.id for c in candidates} == set(range(5, 64)) - {BARE}


def test_words_are_readable() -> None:
    [[candidates]] = fill_mask(MODEL, ["the [MASK]"], top_k=64)
    words = {c.id: c.word for c in candidates}
    assert words[VOCABULARY.encode(["file"])[0][0]] == "file"
    assert any(word.startswith("##") for word in words.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [("no hole here", r"text 2 has no \[MASK\]"), ("[MASK]" + " file" * 80, r"text 2 .* reads 48")],
)
def test_texts_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fill_mask(MODEL, ["the [MASK]", text])


def test_model_without_its_head() -> None:
    params = {name: part for name, part in MODEL.params.items() if name != "mlm_head"}
    model = api.Model(MODEL.run_config, params, VOCABULARY, "memory")
    with pytest.raises(CheckpointError, match="no masked-language head"):
        fill_mask(model, ["the [MASK]"])


def test_table_shows_word_and_probability() -> None:
    text = table(["a [MASK] b [MASK]"], [[[Candidate("file", 9, 0.25)], [Candidate("x", 8, 0.5)]]])
    assert text.split("\n") == [
        "a [MASK] b [MASK]",
        "  mask 1",
        "   25.00%  file",
        "  mask 2",
        "   50.00%  x",
    ]


def test_a_model_read_from_disk_guesses_the_same(tmp_path: Path) -> None:
    path = tiny_models.directory(tmp_path)
    assert fill_mask(api.load(path), ["the [MASK]."]) == fill_mask(MODEL, ["the [MASK]."])


def test_a_bare_mark_of_a_word_is_never_offered() -> None:
    tokens = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "\u2581", "\u2581a", "b"]
    vocabulary = SimpleNamespace(
        pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4,
        starts_word=np.array([token.startswith("\u2581") for token in tokens]),
        token_bytes=np.array([0, 1, 0, 0, 0, 1, 2, 1]), id_to_token=tokens.__getitem__,
        decode=lambda ids: "".join(tokens[i] for i in ids).replace("\u2581", " ").strip(),
    )  # fmt: skip
    found = most_probable(np.array([0.0, 0, 0, 0, 0, 9, 2, 1]), vocabulary, 2)  # type: ignore[arg-type]
    assert [candidate.word for candidate in found] == ["a", "##b"]
