"""The fixed sentences really are held out of the default corpus, by this Python too."""

import pytest

from albert_jax.data.prepare.deduplication import hash_group
from albert_jax.data.sources import python_docs
from albert_jax.data.sources.python_docs import HELD_OUT_SENTENCES, HeldOutSentence
from albert_jax.inference.fill_mask import MASK

HELD_OUT = int(0.05 * 2**64)


@pytest.mark.parametrize("sentence", HELD_OUT_SENTENCES, ids=lambda s: s.word)
def test_sentence_stands_in_held_out_text_only(sentence: HeldOutSentence) -> None:
    assert sentence.text.count(MASK) == 1 and sentence.word.isalpha()
    text = sentence.text.replace(MASK, sentence.word).lower()
    groups = {d.group for d in python_docs.documents() if text in d.text.lower()}
    assert groups == {sentence.source}
    assert hash_group(sentence.source) < HELD_OUT
