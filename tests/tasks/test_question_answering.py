"""Question answering: files, alignment, windows and answers."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from albert_jax.data.sources.tables import Record
from albert_jax.data.vocabularies.normalize import TextRules
from albert_jax.data.vocabularies.wordpiece import WordPiece
from albert_jax.errors import ConfigError, DataError
from albert_jax.tasks.question_answering import SquadV1, SquadV1Config, SquadV2, SquadV2Config
from albert_jax.tasks.support.answer_spans import window_bounds
from albert_jax.tasks.support.offsets import align
from albert_jax.tasks.support.rows import BatchSpec
from albert_jax.tasks.support.squad_files import Answer, Question, from_hub, read_questions
from tests.tasks.word_vocabulary import Words

WORDS = Words("a b c d e f g h i j k l m n o p")
CONTEXT = "A b  C d e f g"
QUESTION = Question("f", "q", "p o", CONTEXT, (Answer("C d", 5),))
V1 = SquadV1Config(doc_stride=2, max_query_length=4)
V2 = SquadV2Config(doc_stride=2, max_query_length=4, start_n_top=2, end_n_top=2)


def windows(vocabulary=WORDS, *questions: Question, length: int = 9, config=V1):
    return SquadV1(config).featurize(vocabulary, questions or (QUESTION,), length)


# ---- files ---------------------------------------------------------------------------------------


def squad(**changes) -> dict:
    item = {"id": "q", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]}
    item.update(changes)
    return {"data": [{"title": "t", "paragraphs": [{"context": "The cat sat.", "qas": [item]}]}]}


def refused(folder: Path, content: str, *parts: str) -> None:
    path = folder / "s.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_questions(str(path), answered=True)
    message = str(caught.value)
    assert "\n" not in message and "s.json" in message
    for part in parts:
        assert part in message


def test_squad_files(tmp_path: Path) -> None:
    def read(answered: bool = True, **changes) -> Question:
        path = tmp_path / "s.json"
        path.write_text(json.dumps(squad(**changes)))
        (question,) = read_questions(str(path), answered=answered)
        return question

    assert read().answers == (Answer("cat", 4),)
    assert read(answers=[], is_impossible=True).answers == ()
    # Without answers to check, those of the file are not even looked at.
    assert read(answered=False, answers=5).answers == ()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"answers": [{"text": "cat", "answer_start": 5}]}, "not in the context"),
        ({"answers": [{"text": "cat", "answer_start": -1}]}, "not in the context"),
        ({"answers": []}, "no answers and not is_impossible"),
        ({"is_impossible": True}, "but has answers"),
        ({"question": " "}, "question is empty"),
    ],
)
def test_questions_at_odds_with_themselves(tmp_path: Path, changes: dict, part: str) -> None:
    refused(tmp_path, json.dumps(squad(**changes)), "data[0].paragraphs[0].qas[0]", "(id q)", part)


def test_broken_squad_files(tmp_path: Path) -> None:
    refused(tmp_path, '{\n"data": [,\n', "s.json:2")
    refused(tmp_path, "[]", "no list 'data'")
    refused(tmp_path, '{"data": []}', "no questions")
    refused(tmp_path, '{"data": [{}]}', "data[0]: no 'paragraphs'")
    for answers in (5, True, {"text": ["cat"], "answer_start": [4]}):
        refused(tmp_path, json.dumps(squad(answers=answers)), "qas[0]", "answers is", "not a list")
    twice = squad()
    twice["data"] *= 2
    refused(tmp_path, json.dumps(twice), "id 'q' is also at")


def test_questions_of_hub_datasets() -> None:
    fields = {"id": "q", "question": "Who?", "context": "The cat.",
              "answers": {"text": ["cat"], "answer_start": [4]}}  # fmt: skip
    assert from_hub(Record("x", fields), answered=True).answers == (Answer("cat", 4),)
    empty = {"text": [], "answer_start": []}
    assert from_hub(Record("x", fields | {"answers": empty}), answered=True).answers == ()
    assert from_hub(Record("x", fields), answered=False).answers == ()
    del fields["context"]
    with pytest.raises(DataError, match="x: no 'context'"):
        from_hub(Record("x", fields), answered=True)


@pytest.mark.parametrize("answers", [{"text": ["cat"], "answer_start": []}, None, ["cat"]])
def test_hub_datasets_of_another_layout(answers: object) -> None:
    fields = {"id": "q", "question": "Who?", "context": "The cat.", "answers": answers}
    with pytest.raises(DataError, match="x: answers .*: give SQuAD's layout"):
        from_hub(Record("x", fields), answered=True)


def test_squad_v1_refuses_questions_without_answers(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(squad(answers=[], is_impossible=True)))
    with pytest.raises(DataError, match=r"qas\[0\]: no answer, which squad-v2 knows"):
        SquadV1(V1).read_examples(str(path), labelled=True)
    assert SquadV2(V2).read_examples(str(path), labelled=True)
    assert SquadV1(V1).read_examples(str(path), labelled=False)


def test_a_real_file(shared: Path) -> None:
    questions = read_questions(
        str(shared / "data/squad/squad-v2.0-dev-16articles.json"), answered=True
    )
    assert len(questions) == 6078
    assert sum(not question.answers for question in questions) == 3168


# ---- alignment -----------------------------------------------------------------------------------


def test_alignment_gives_up_on_another_text() -> None:
    rules = TextRules()
    assert align("abcdefghij", [" klm", " nop"], rules) is None
    assert align("", [" a"], rules) is None
    alignment = align("  Caf\u00e9\tau lait", [" cafe", " au", " lait"], rules)
    assert alignment is not None
    assert alignment.ends == (5, 8, 13)
    assert alignment.token_span(7, 2) == (1, 1)


@pytest.mark.parametrize("keep_accents", [False, True])
def test_alignment_of_decomposed_text(keep_accents: bool) -> None:
    """Letters with their marks apart, and Korean syllables in letters, are what they look like."""
    rules = TextRules(keep_accents=keep_accents)
    composed = "m\u1ed9t th\u00e0nh ph\u1ed1 \ud55c\uad6d\uc5b4 \u1edf"
    decomposed = unicodedata.normalize("NFD", composed)
    tokens = [" " + unicodedata.normalize("NFC", word) for word in rules.apply(composed).split()]
    first, second = align(decomposed, tokens, rules), align(composed, tokens, rules)
    assert first is not None and second is not None
    for i, word in enumerate(composed.split()):
        shown = decomposed[first.starts[i] : first.ends[i] + 1].strip()
        assert unicodedata.normalize("NFC", shown) == word
        apart = unicodedata.normalize("NFD", word)
        assert first.token_span(decomposed.index(apart), len(apart)) == (i, i)
        assert second.token_span(composed.index(word), len(word)) == (i, i)


def test_alignment_across_long_white_space() -> None:
    text = "the cat " * 8 + "stood where the dog" + " " * 30_000 + "sat"
    alignment = align(text, [" " + word for word in text.split()], TextRules())
    assert alignment is not None
    assert alignment.token_span(text.index("sat"), 3) == (20, 20)
    shown = [text[alignment.starts[i] : alignment.ends[i] + 1].strip() for i in range(21)]
    assert shown == text.split()


# ---- windows -------------------------------------------------------------------------------------


def test_bounds_of_windows() -> None:
    assert window_bounds(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert window_bounds(10, 4, 9) == [(0, 4), (4, 8), (8, 10)]
    assert window_bounds(3, 4, 2) == [(0, 3)]


def test_windows_point_into_the_text() -> None:
    features = windows()
    assert [(f.start, f.end, f.impossible) for f in features] == [
        (6, 7, False), (4, 5, False), (0, 0, True)]  # fmt: skip
    second = features[1]
    assert CONTEXT[second.starts[0] : second.ends[1] + 1].strip() == "C d"
    # Each token belongs to exactly one window, the one with most context on its poorer side.
    assert [feature.is_best.tolist() for feature in features] == [
        [True, True, True, False],
        [False, True, True, False],
        [False, True, True],
    ]
    batch = SquadV1(V1).collate(features, BatchSpec(WORDS, 9, 4))  # type: ignore[arg-type]
    assert batch["p_mask"][1].tolist() == [0, 1, 1, 1, 0, 0, 0, 0, 1]
    assert batch["p_mask"][3].tolist() == [0] + [1] * 8
    assert batch["is_impossible"].tolist() == [0, 0, 1, 0]
    assert batch["start_positions"].tolist() == [6, 4, 0, 0]
    assert batch["example_weights"].tolist() == [1, 1, 1, 0]


def test_rows_too_short_for_a_context_or_for_the_search() -> None:
    with pytest.raises(ConfigError, match="task.max_query_length 6"):
        windows(config=dataclasses.replace(V1, max_query_length=6))
    config = dataclasses.replace(V2, end_n_top=10)
    with pytest.raises(ConfigError, match="task.end_n_top must be at most 9"):
        SquadV2(config).featurize(WORDS, [QUESTION], 9)  # type: ignore[arg-type]


def test_questions_that_cannot_be_aligned_are_reported(caplog) -> None:
    good = Question("f1", "q1", "p o", "A b C d", (Answer("C", 4),))
    lost = Question("f2", "q2", "p o", "\ufb01\ufb02\ufb01\ufb02 \ufb01\ufb02", ())
    with caplog.at_level("WARNING", logger="albert_jax"):
        assert {feature.question for feature in windows(WORDS, good, lost, length=12)} == {0}
    assert "1 of 2 questions are left out, the first at f2" in caplog.text


@pytest.mark.parametrize("lower_case", [True, False])
def test_answers_in_tokens_of_a_wordpiece_vocabulary(lower_case: bool) -> None:
    """Accents, characters of full width, Chinese, and a word that the vocabulary lacks."""
    capital = "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002"
    context = f"{capital} Caf\u00e9 \uff21\uff22 zzz end"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "Caf\u00e9", "end", "?"]
    tokens += [*dict.fromkeys(capital)]
    vocabulary = WordPiece("\n".join(tokens).encode(), lower_case=lower_case)
    for text in ("\u9996\u90fd", "Caf\u00e9", "end"):
        question = Question("f", "q", "?", context, (Answer(text, context.index(text)),))
        (window,) = windows(vocabulary, question, length=40)
        first, last = window.start - window.offset, window.end - window.offset
        assert not window.impossible
        assert context[window.starts[first] : window.ends[last] + 1].strip() == text


@pytest.mark.parametrize(
    "context",
    [
        "the people\u2019s land so",
        "so the people\u2019s land is \u2018so\u2019 s\u2019",
        "land so \u2018a\u2019 s\u2019 a",
    ],
)
def test_unknown_marks_before_and_behind_an_answer(context: str) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", "a"]
    tokens += ["the", "people", "s", "land", "so", "is"]
    vocabulary = WordPiece("\n".join(tokens).encode())
    question = Question("f", "q", "?", context, (Answer("land", context.index("land")),))
    (window,) = windows(vocabulary, question, length=40)
    spans = list(zip(window.starts, window.ends, strict=True))
    assert spans[window.start - window.offset] == spans[window.end - window.offset]
    shown = [context[first : last + 1].strip() for first, last in spans]
    assert shown[window.start - window.offset] == "land"
    assert "".join(shown) == context.replace(" ", "")


# ---- answers -------------------------------------------------------------------------------------


def predicted(windows, start: dict, end: dict, **changes) -> dict:
    """The prediction for QUESTION from logits that are low everywhere else."""

    def logits(values: dict[int, float]) -> np.ndarray:
        array = np.full((len(windows), 9), -10.0)
        array[:, list(values)] = list(values.values())
        return array

    config = dataclasses.replace(V1, **changes)
    (prediction,) = SquadV1(config).predict([QUESTION], windows, (logits(start), logits(end)))
    return prediction


def test_texts_are_restored_ranked_and_counted_once() -> None:
    first = windows()[0]
    found = predicted([first, first], {4: 5, 6: 4}, {5: 5, 7: 3})
    assert found["id"] == "q" and found["text"] == "A b" and "null_score" not in found
    texts = [answer["text"] for answer in found["best"]]
    assert len(set(texts)) == len(texts) and "C d" in texts
    assert found["best"][0]["score"] == 10
    scores = [answer["score"] for answer in found["best"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(answer["probability"] for answer in found["best"]) == pytest.approx(1)
    assert len(predicted([first], {4: 5}, {5: 5, 6: 3}, n_best_size=2)["best"]) == 2


@pytest.mark.parametrize(
    ("start", "end", "changes", "texts"),
    [
        pytest.param(4, 6, {}, ["A b  C"], id="as the context has it"),
        pytest.param(1, 4, {}, [], id="starts in the question"),
        pytest.param(6, 4, {}, [], id="ends before it starts"),
        pytest.param(4, 8, {}, [], id="ends on [SEP]"),
        pytest.param(4, 6, {"max_answer_length": 3}, ["A b  C"], id="as long as allowed"),
        pytest.param(4, 6, {"max_answer_length": 2}, [], id="too long"),
        pytest.param(7, 7, {}, [], id="shown with more context by the second window"),
    ],
)
def test_spans_that_can_be_answers(start: int, end: int, changes: dict, texts: list) -> None:
    found = predicted(windows()[:1], {start: 5}, {end: 5}, n_best_size=1, **changes)
    assert [answer["text"] for answer in found["best"]] == texts
    assert found["text"] == (texts[0] if texts else "")


def test_beam_and_null_score() -> None:
    beam = (
        np.tile([-0.1, -3.0], (2, 1)),
        np.tile([5, 6], (2, 1)),
        np.tile([[-0.2, -2.0], [-0.1, -4.0]], (2, 1, 1)),
        np.tile([[5, 6], [6, 4]], (2, 1, 1)),
        np.array([2.0, -1.0]),
    )
    features = [windows()[1]] * 2
    lost = dataclasses.replace(QUESTION, id="lost")
    found, empty = SquadV2(V2).predict([QUESTION, lost], features, beam)
    assert [answer["text"] for answer in found["best"]] == ["d", "d e", "e"]
    assert found["best"][0]["score"] == pytest.approx(-0.3)
    assert found["null_score"] == -1  # the lowest of the windows
    assert found["unanswerable"] == pytest.approx(1 / (1 + np.e)) and found["text"] == "d"
    assert (empty["text"], empty["best"], empty["null_score"]) == ("", [], 0.0)
    [unanswered] = SquadV2(V2).predict([QUESTION], features[:1], [part[:1] for part in beam])
    assert unanswered["unanswerable"] > 0.8 and unanswered["text"] == ""
    assert unanswered["best"][0]["text"] == "d"


def test_the_task_scores_and_its_baseline() -> None:
    questions = [QUESTION, dataclasses.replace(QUESTION, id="n", answers=())]
    predictions = [
        {"id": "q", "text": "C d", "best": [{"text": "C d"}], "null_score": -1.0},
        {"id": "n", "text": "", "best": [{"text": "b"}], "null_score": 1.0},
    ]
    scores = SquadV2(V2).score(questions, predictions)
    assert list(scores)[:2] == ["f1", "exact"] and scores["f1"] == scores["exact"] == 100
    assert SquadV2(V2).baseline(questions, questions)["exact"] == 50
    scores = SquadV1(V1).score(questions[:1], predictions[:1])
    assert scores == {"f1": 100, "exact_match": 100} and SquadV1(V1).is_perfect(scores)
