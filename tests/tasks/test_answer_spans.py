"""From span scores to texts."""

from __future__ import annotations

import numpy as np
import pytest
from word_vocabulary import Words

from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.tasks import answer_spans
from albert_jax.tasks.squad_files import Answer, Question
from albert_jax.tasks.squad_windows import window_features

CONTEXT = "A b  C d e f g"
QUESTION = Question("f", "q", "p o", CONTEXT)
WORDS = Words("a b c d e f g o p")
WINDOWS = [
    feature.window
    for feature in window_features(WORDS, [QUESTION], 9, doc_stride=2, max_query_length=4)
]


def logits(**places: float) -> np.ndarray:
    values = np.full(9, -10.0)
    for place, value in places.items():
        values[int(place[1:])] = value
    return values


def candidates(window, start, end, *, n_best: int = 20, max_length: int = 30):
    return answer_spans.independent_candidates(
        window, start, end, n_best=n_best, max_length=max_length
    )


def test_texts_are_restored_ranked_and_counted_once() -> None:
    found = candidates(WINDOWS[0], logits(p4=5, p6=4), logits(p5=5, p7=3))
    (prediction,) = answer_spans.rank([QUESTION], [*found, *found], (), n_best=20)
    best = prediction["best"]
    assert prediction["text"] == best[0]["text"] == "A b"
    assert best[0]["score"] == 10
    texts = [entry["text"] for entry in best]
    assert len(set(texts)) == len(texts)
    assert "C d" in texts
    assert sum(entry["probability"] for entry in best) == pytest.approx(1)
    assert "null_score" not in prediction
    (shorter,) = answer_spans.rank([QUESTION], found, (), n_best=2)
    assert len(shorter["best"]) == 2


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
        (feature,) = window_features(vocabulary, [asked], 40, doc_stride=8, max_query_length=4)
        window = feature.window
        first, last = (position - window.offset for position in (feature.start, feature.end))
        assert not feature.impossible
        assert context[window.starts[first] : window.ends[last] + 1].strip() == text


def test_spans_that_cannot_be_answers() -> None:
    window = WINDOWS[0]

    def texts(start: int, end: int, max_length: int = 30) -> list[str]:
        found = candidates(
            window,
            logits(**{f"p{start}": 5.0}),
            logits(**{f"p{end}": 5.0}),
            n_best=1,
            max_length=max_length,
        )
        return [answer_spans.restore(CONTEXT, candidate) for candidate in found]

    assert texts(4, 6) == ["A b  C"]
    assert texts(1, 4) == []  # starts in the question
    assert texts(6, 4) == []  # ends before it starts
    assert texts(4, 8) == []  # ends on [SEP]
    assert texts(4, 6, max_length=2) == []
    assert texts(7, 7) == []  # the second window shows "d" with more context


def test_null_score_is_the_lowest_of_the_windows() -> None:
    beam = answer_spans.beam_candidates(
        WINDOWS[1],
        np.array([-0.1, -3.0]),
        np.array([5, 6]),
        np.array([[-0.2, -2.0], [-0.1, -4.0]]),
        np.array([[5, 6], [6, 4]]),
        max_length=30,
    )
    (prediction,) = answer_spans.rank([QUESTION], beam, [(0, 2.0), (0, -1.0)], n_best=20)
    assert prediction["best"][0]["text"] == "d"
    assert len(prediction["best"]) == 3
    assert prediction["null_score"] == -1
    assert prediction["text"] == "d"
    (empty,) = answer_spans.rank([QUESTION], [], (), n_best=20)
    assert empty["text"] == "" and empty["best"] == []
