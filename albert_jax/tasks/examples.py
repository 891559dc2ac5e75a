"""The examples of each task family, as read and before any tokenizer sees them.

``where`` is the place an example came from ("train.tsv:12"); every later complaint about the
example begins with it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentences:
    """One text or a pair, with a label (classification) or a score (regression)."""

    where: str
    texts: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True)
class Choices:
    """A context and several endings, of which one is right."""

    where: str
    context: str
    endings: tuple[str, ...]
    label: int | None = None
    group: str = ""
    """Part of the data that is also scored on its own (RACE: "middle", "high")."""


@dataclass(frozen=True)
class Answer:
    """Text of an answer and its first character in the context."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context; no answers where it cannot be answered."""

    where: str
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Tagged:
    """Words of a sentence and, if known, one tag for each."""

    where: str
    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    def where_word(self, number: int) -> str:
        """The place of a word: in a file each stands on a line of its own."""
        path, _, line = self.where.rpartition(":")
        return f"{path}:{int(line) + number}" if line.isdecimal() else self.where


@dataclass(frozen=True)
class SourceTarget:
    """Text to generate from (turns of a dialogue, or one text, or none) and the text to write."""

    where: str
    source: tuple[str, ...]
    target: str | None = None


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point; the first is the right one."""

    where: str
    good: str
    bad: str
    group: str = ""
