"""Documents to sentences: the units that segment pairs are built from.

Two rules. "line" is the original's: each line is a sentence, for corpora that come so. "split",
the default, also ends sentences inside a line, because lines of ordinary text are whole
paragraphs, longer than a short row, and sentence order needs at least two units in a row. It is
done by sentencex, the maintained splitter of the Wikimedia Foundation: it knows the
abbreviations of some 300 languages and the full stops of scripts without spaces, is compiled
(20 to 45 MB/s a core, faster than the segmentation into pieces; pysbd reaches 0.05), and never
changes the text. The language decides about abbreviations only; "en" splits any script.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Literal

import sentencex

from albert_jax.errors import ConfigError

Rule = Literal["split", "line"]

MAX_CHARACTERS = 1000
"""A sentence without an end is cut at white space at this length ("split" only)."""


def sentences(text: str, rule: Rule = "split", language: str = "en") -> list[str]:
    """The sentences of a document, in order, stripped, none empty.

    Args:
      text: the document; its lines are paragraphs ("split") or sentences ("line").
      rule: see the top of this module.
      language: ISO 639 code; whose abbreviations end no sentence ("split" only).
    """
    lines = text.split("\n")
    if rule == "line":
        return [line for raw in lines if (line := raw.strip())]
    found: list[str] = []
    for line in lines:
        for raw in sentencex.segment(language, line):  # pyright: ignore[reportAttributeAccessIssue]
            if len(raw) > MAX_CHARACTERS:
                found += _cut(raw.strip())
            elif sentence := raw.strip():
                found.append(sentence)
    return found


def check_language(language: str) -> None:
    """Raises ConfigError for anything but a language code, which the splitter takes in silence."""
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z]+)*", language):
        raise ConfigError(
            f"language {language!r} is no ISO 639 code: give two or three small letters, as en"
        )


def description(rule: Rule, language: str) -> str:
    """Names rule, language and version: equal descriptions mean equal borders."""
    return "line" if rule == "line" else f"sentencex {version('sentencex')} {language}"


def _cut(sentence: str) -> list[str]:
    parts: list[str] = []
    begin = 0
    while len(sentence) - begin > MAX_CHARACTERS:
        space = sentence.rfind(" ", begin + MAX_CHARACTERS // 2, begin + MAX_CHARACTERS + 1)
        end = begin + MAX_CHARACTERS if space < 0 else space
        parts.append(sentence[begin:end].rstrip())
        begin = end
        while begin < len(sentence) and sentence[begin].isspace():
            begin += 1
    return [*parts, sentence[begin:]] if begin < len(sentence) else parts
