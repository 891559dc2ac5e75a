"""The fixed sentences really are held out of the default corpus, by this Python too."""

import pytest

from albert_jax.data.prepare.deduplication import hash_group
from albert_jax.data.sources import python_docs
from albert_jax.inference.fill_mask import MASK, HeldOut, held_out_sentences

HELD_OUT = int(0.05 * 2**64)


@pytest.mark.parametrize("sentence", held_out_sentences(), ids=lambda s: s.word)
def test_sentence_stands_in_held_out_text_only(sentence: HeldOut) -> None:
    assert sentence.text.count(MASK) == 1
    whole = sentence.text.replace(MASK, sentence.word).lower()
    groups = {d.group for d in python_docs.documents() if whole in d.text.lower()}
    assert groups == {sentence.source}
    assert hash_group(sentence.source) < HELD_OUT


def test_there_are_three_with_single_words() -> None:
    sentences = held_out_sentences()
    assert len(sentences) == 3 and len({s.word for s in sentences}) == 3
    assert all(s.word.isalpha() and s.word.islower() for s in sentences)
