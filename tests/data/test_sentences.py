"""Sentence borders: abbreviations, scripts, and the original's rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.data.sources.sentences import MAX_CHARACTERS, check_language, description, sentences
from albert_jax.errors import ConfigError


def test_lines_are_sentences_if_asked() -> None:
    assert sentences(" One. Two.\n\nThree \n", "line") == ["One. Two.", "Three"]


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("Dr. J. K. Smith came. He left!", "en", ["Dr. J. K. Smith came.", "He left!"]),
        ("It cost $3.50 in the U.S. Army. Why?", "en", ["It cost $3.50 in the U.S. Army.", "Why?"]),
        ('"Really?" she asked. "Yes."', "en", ['"Really?" she asked.', '"Yes."']),
        ("Am 3. Oktober kam er. Er ging.", "de", ["Am 3. Oktober kam er.", "Er ging."]),
        (
            "\u0410. \u0421. \u041f\u0443\u0448\u043a\u0438\u043d. \u0427\u0442\u043e?",
            "ru",
            ["\u0410. \u0421. \u041f\u0443\u0448\u043a\u0438\u043d.", "\u0427\u0442\u043e?"],
        ),
        (
            "\u6211\u4eec\u8d70\u3002\u597d\uff01",
            "zh",
            ["\u6211\u4eec\u8d70\u3002", "\u597d\uff01"],
        ),
        (
            "\u6211\u4eec\u8d70\u3002\u597d\uff01",
            "en",
            ["\u6211\u4eec\u8d70\u3002", "\u597d\uff01"],
        ),
    ],
)
def test_borders(text: str, language: str, found: list[str]) -> None:
    assert sentences(text, "split", language) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "昨天Dr. Wang来了。他说：“你好！”我们走吧。",
            ["昨天Dr. Wang来了。", "他说：“你好！”", "我们走吧。"],
        ),
        ("公司在U.S. 境内。Mr. Li也在。", ["公司在U.S. 境内。", "Mr. Li也在。"]),
        ("他叫J. K. 罗琳。我用Python. 他用Java.", ["他叫J. K. 罗琳。", "我用Python.", "他用Java."]),
        ("小明vs. 小红。", ["小明vs. 小红。"]),
    ],
)
def test_latin_abbreviations_in_chinese(text: str, found: list[str]) -> None:
    for language in ("zh", "zh-hant"):
        assert sentences(text, "split", language) == found
        assert description("split", language).endswith(", Latin abbreviations")


@pytest.mark.parametrize("language", ["en", "fr", "zh"])
@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000"])
def test_wide_spaces_before_a_full_stop(space: str, language: str) -> None:
    """The splitter alone fails at them; they stay in the text."""
    assert "".join(sentences(f"a D{space}.WD", "split", language)) == f"a D{space}.WD"


@given(st.text(alphabet="Dr. Wang王来了。，Ａ b\u3000!é"))
def test_no_character_of_chinese_is_lost(text: str) -> None:
    assert "".join("".join(sentences(text, "split", "zh")).split()) == "".join(text.split())


def test_nothing_is_lost_and_nothing_is_endless() -> None:
    text = "One line. Another one\n\n" + "word " * 1000 + "\n" + "x" * 2500
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(0 < len(sentence) <= MAX_CHARACTERS for sentence in found)
    assert found[:2] == ["One line.", "Another one"]


@pytest.mark.parametrize("language", ["", "english", "EN", "d e"])
def test_languages_are_codes(language: str) -> None:
    with pytest.raises(ConfigError, match="not an ISO 639 code"):
        check_language(language)
