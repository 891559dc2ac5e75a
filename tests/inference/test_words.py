"""Tokens are put together to words."""

from __future__ import annotations

import types

import numpy as np
import pytest

from albert_jax.data.vocabularies.training import from_texts
from albert_jax.inference.words import continues_word, word_spans
from tests import tiny_models


def words(tokens: list[str], starts: list[bool]) -> list[str]:
    """The words of tokens, of which the first two are [CLS] and [SEP]."""
    vocabulary = types.SimpleNamespace(
        cls_id=0, sep_id=1, pad_id=-1, unk_id=-1, mask_id=-1,
        starts_word=np.array(starts), id_to_token=lambda id: tokens[id],
    )  # fmt: skip
    ids = [0, *range(2, len(tokens)), 1]
    return ["".join(tokens[i] for i in ids[a:b]) for a, b in word_spans(vocabulary, ids)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["▁won", "der", "ful", ".", "▁a", "▁", "s", "a"], ["▁wonderful", ".", "▁a", "▁sa"]),
        (["won", "##der", "2", ",", "##d"], ["won##der", "2", ",", "##d"]),
        (["▁", "我", "们", "▁ab", "是", "c"], ["▁", "我", "们", "▁ab", "是", "c"]),
    ],
)
def test_words_are_put_together(tokens, expected):
    starts = [t.startswith("▁") or (t.isalnum() and expected[0][0] != "▁") for t in tokens]
    found = words(["[CLS]", "[SEP]", *tokens], [True, True, *starts])
    assert found == ["[CLS]", *expected, "[SEP]"]


def test_the_words_of_a_real_vocabulary():
    vocabulary = tiny_models.vocabulary()
    [ids] = vocabulary.encode(["the file returns another name."])
    spans = word_spans(vocabulary, ids)
    found = [vocabulary.decode(ids[a:b].tolist()).strip() for a, b in spans]
    assert found == ["the", "file", "returns", "another", "name", "."]


def test_words_of_other_scripts_go_on_where_no_mark_of_a_start_is():
    text = "красный краснота зелёный зелёнка красивый мир"
    vocabulary = from_texts([text] * 40, 60)
    [ids] = vocabulary.encode(["красивый мир"])
    marked = [vocabulary.id_to_token(int(id)).startswith("▁") for id in ids]
    assert len(ids) > 2 and sum(marked) == 2
    assert continues_word(vocabulary, ids).tolist() == [not one for one in marked]
    assert len(word_spans(vocabulary, ids)) == 2
    thai = from_texts(["สวัสดีครับ"] * 40, 40)
    [ids] = thai.encode(["สวัสดีครับ"])
    assert not continues_word(thai, ids)[1:].any()
