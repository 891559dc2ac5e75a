"""Text preprocessing: one text at a time and many at once give the same."""

from __future__ import annotations

import pytest

from albert_jax.data.vocabularies.normalize import TextRules

CASES = [
    ("  Two\t words \n", "two words"),
    ("Caf\u00e9 na\u00efve", "cafe naive"),
    ("\u212bngstr\u00f6m \ufb01n \uff21", "angstrom fin a"),
    ("\u039f\u0394\u039f\u03a3", "\u03bf\u03b4\u03bf\u03c2"),  # a final sigma at the end of a text
    ("\u201cquotes\u201d stay, ``these'' too", "\u201cquotes\u201d stay, ``these'' too"),
    ("non\u00a0breaking\u2003space", "non breaking space"),
    ("\u0439\u0451\u0416", "\u0438\u0435\u0436"),
    ("", ""),
    ("\u00a0", ""),
]


@pytest.mark.parametrize(("text", "cleaned"), CASES)
def test_rules(text: str, cleaned: str) -> None:
    assert TextRules().apply(text) == cleaned


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("keep_accents", [True, False])
@pytest.mark.parametrize("collapse_spaces", [True, False])
def test_many_at_once_are_as_one_by_one(
    lower_case: bool, keep_accents: bool, collapse_spaces: bool
) -> None:
    rules = TextRules(
        lower_case=lower_case, keep_accents=keep_accents, collapse_spaces=collapse_spaces
    )
    texts = [text for text, _ in CASES]
    for some in (
        texts,
        texts[1:4],
        [texts[8]],
        ["plain", "ascii only"],
        ["\u0301a", "b\u0301"],
        [],
    ):
        assert rules.apply_all(some) == [rules.apply(text) for text in some]


def test_keeping_case_and_accents() -> None:
    assert TextRules(lower_case=False).apply("Caf\u00e9") == "Cafe"
    assert TextRules(lower_case=False, keep_accents=True).apply("Caf\u00e9") == "Caf\u00e9"
    assert TextRules(collapse_spaces=False).apply(" A  b ") == " a  b "
