"""Dividing documents into sentences, from which segment pairs are built.

There are two rules. "line" is the original's: every line is a sentence, for divided corpora.
"split", the default, also ends sentences inside a line, because a line of ordinary text is a whole
paragraph, longer than a short row, and sentence order needs at least two sentences in a row. It
uses sentencex, the splitter of the Wikimedia Foundation, which knows the abbreviations of some 300
languages and the full stops of scripts without spaces, runs at 20 to 45 MB/s a core (pysbd: 0.05),
and never changes the text. The language only decides about abbreviations; "en" splits any script.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Literal

import sentencex

from albert_jax.errors import ConfigError

Rule = Literal["split", "line"]

_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_LATIN_IN_CHINESE = re.compile("(?<=[\u3000-\u9fff\uff00-\uffef])(?=[A-Za-z])")
MAX_CHARACTERS = 1000
"""Under "split", longer sentences are cut at white space."""


def sentences(text: str, rule: Rule = "split", language: str = "en") -> list[str]:
    """The stripped, non-empty sentences of a document, in order.

    The lines of the text are paragraphs under "split" and sentences under "line". `language` is the
    ISO 639 code of the language whose abbreviations "split" knows.
    """
    lines = text.split("\n")
    if rule == "line":
        return [line for raw in lines if (line := raw.strip())]
    stripped: list[str] = []
    for line in lines:
        for raw in _segments(line, language):
            if len(raw) > MAX_CHARACTERS:
                stripped += _cut(raw.strip())
            elif sentence := raw.strip():
                stripped.append(sentence)
    return stripped


def _segments(line: str, language: str) -> Iterator[str]:
    """The sentences of a line, which together are the line.

    The splitter knows an abbreviation by the space before it. Chinese writes none there, so it gets
    a line with a space between Chinese and Latin characters. It fails at a space of several bytes
    in front of a full stop, so it gets plain ones.
    """
    segment = sentencex.segment  # pyright: ignore[reportAttributeAccessIssue]
    parts = _LATIN_IN_CHINESE.split(line) if _is_chinese(language) else [line]
    added = list(itertools.accumulate(len(part) + 1 for part in parts[:-1]))
    begin = end = 0
    for piece in segment(language, _WIDE_SPACE.sub(" ", " ".join(parts))):
        end += len(piece)
        stop = end - bisect.bisect_right(added, end)
        yield line[begin:stop]
        begin = stop


def _is_chinese(language: str) -> bool:
    return language.partition("-")[0] == "zh"


def check_language(language: str) -> None:
    """Raises ConfigError for anything but a language code, which the splitter would ignore."""
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z]+)*", language):
        raise ConfigError(
            f"language {language!r} is not an ISO 639 code: give two or three lower-case letters, "
            "such as en"
        )


def description(rule: Rule, language: str) -> str:
    """Rule, language and version of the splitter; equal descriptions give equal sentences."""
    if rule == "line":
        return "line"
    latin = ", Latin abbreviations" if _is_chinese(language) else ""
    return f"sentencex {version('sentencex')} {language}{latin}"


def _cut(sentence: str) -> list[str]:
    parts: list[str] = []
    while len(sentence) > MAX_CHARACTERS:
        space = sentence.rfind(" ", MAX_CHARACTERS // 2, MAX_CHARACTERS + 1)
        end = MAX_CHARACTERS if space < 0 else space
        parts.append(sentence[:end].rstrip())
        sentence = sentence[end:].lstrip()
    return [*parts, sentence] if sentence else parts
