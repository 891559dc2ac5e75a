"""From span scores to texts."""

from __future__ import annotations

import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.tasks import spans
from albert_jax.tasks.examples import Answer, Question
from albert_jax.tasks.squad_features import span_features

CONTEXT = "A b  C d e f g"
QUESTION = Question("f", "q", "p o", CONTEXT)
WINDOWS = span_features(Words("a b c d e f g o p"), [QUESTION], 9, stride=2, query_length=4)


def logits(**places: float) -> np.ndarray:
    values = np.full(9, -10.0)
    for place, value in places.items():
        values[int(place[1:])] = value
    return values


def test_texts_are_restored_ranked_and_counted_once() -> None:
    first = WINDOWS[0]
    found = spans.independent_candidates(first, logits(p4=5, p6=4), logits(p5=5, p7=3))
    (said,) = spans.predict([QUESTION], [*found, *found])
    assert said.best[0].text == "A b"
    assert said.best[0].score == 10
    texts = [x.text for x in said.best]
    assert len(set(texts)) == len(texts)
    assert "C d" in texts
    assert sum(x.probability for x in said.best) == pytest.approx(1)
    assert len(spans.predict([QUESTION], found, best=2)[0].best) == 2


@pytest.mark.parametrize("lower_case", [True, False])
def test_answers_in_pieces_of_a_wordpiece_vocabulary(lower_case: bool) -> None:
    """Accents, characters of full width, Chinese, and a word that the vocabulary lacks."""
    context = (
        "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002 Caf\u00e9 \uff21\uff22 zzz end"
    )
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "Caf\u00e9", "end", "?"]
    pieces += [*dict.fromkeys("\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002")]
    vocabulary = WordPiece("\n".join(pieces).encode(), lower_case=lower_case)
    for text in ("\u9996\u90fd", "Caf\u00e9", "end"):
        asked = Question("f", "q", "?", context, (Answer(text, context.index(text)),))
        (window,) = span_features(vocabulary, [asked], 40, stride=8, query_length=4)
        first, last = (place - window.offset for place in (window.start, window.end))
        assert not window.impossible
        assert context[window.starts[first] : window.ends[last] + 1].strip() == text


def test_what_can_be_no_answer() -> None:
    window = WINDOWS[0]

    def texts(start: int, end: int, **options) -> list[str]:
        found = spans.independent_candidates(
            window, logits(**{f"p{start}": 5.0}), logits(**{f"p{end}": 5.0}), best=1, **options
        )
        return [spans.restore(CONTEXT, c) for c in found]

    assert texts(4, 6) == ["A b  C"]
    assert texts(1, 4) == []  # starts in the question
    assert texts(6, 4) == []  # ends before it starts
    assert texts(4, 8) == []  # ends on [SEP]
    assert texts(4, 6, max_length=2) == []
    assert texts(7, 7) == []  # the second window shows "d" with more context


def test_null_score_is_the_lowest_of_the_windows() -> None:
    beam = spans.beam_candidates(
        WINDOWS[1],
        np.array([-0.1, -3.0]),
        np.array([5, 6]),
        np.array([[-0.2, -2.0], [-0.1, -4.0]]),
        np.array([[5, 6], [6, 4]]),
    )
    (said,) = spans.predict([QUESTION], beam, [(0, 2.0), (0, -1.0)])
    assert said.best[0].text == "d"
    assert len(said.best) == 3
    assert said.null_score == -1
    assert said.answer() == "d"
    assert said.answer(-1.0) == "d"
    assert said.answer(-1.5) == ""
    assert spans.predict([QUESTION], [])[0].answer() == ""
