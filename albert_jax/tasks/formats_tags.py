"""Tagged words in CoNLL's form: one word per line, blank lines between sentences."""

from __future__ import annotations

from pathlib import Path

from albert_jax.errors import DataError
from albert_jax.tasks.examples import Tagged
from albert_jax.tasks.tables import read_text

DOCUMENT = "-DOCSTART-"


def read_conll(
    path: str | Path, *, word_column: int = 0, tag_column: int = -1, tagged: bool = True
) -> list[Tagged]:
    """Sentences of a CoNLL file; columns are counted from 0 (negative: from the end).

    Lines that open a document ("-DOCSTART-") and comments are skipped; columns are parted by tabs
    if the line has one, else by white space. A line before a sentence that begins with "# " is a
    comment unless it has as many columns as the file. ``tagged=False`` reads words only.
    """
    lines = [line.rstrip("\r") for line in read_text(path).split("\n")]
    found: list[Tagged] = []
    words: list[str] = []
    tags: list[str] = []
    start = 1
    width = next((len(_columns(line)) for line in lines if _is_word(line)), 0)

    def close() -> None:
        if words:
            found.append(Tagged(f"{path}:{start}", tuple(words), tuple(tags) if tagged else None))
            words.clear()
            tags.clear()

    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith(DOCUMENT):
            close()
            continue
        fields = _columns(line)
        if line.startswith("# ") and not words and len(fields) != width:
            continue
        if len(fields) != width or (tagged and width < 2):
            raise DataError(
                f"{path}:{number}: {len(fields)} columns where {max(width, 1 + tagged)} are "
                "expected; one word and its tags per line"
            )
        try:
            word, tag = fields[word_column], fields[tag_column] if tagged else ""
        except IndexError as error:
            named = f"{word_column} or {tag_column}" if tagged else word_column
            raise DataError(
                f"{path}:{number}: no column {named} among {len(fields)}; "
                "correct the column numbers"
            ) from error
        if not word.strip() or (tagged and not tag.strip()):
            raise DataError(f"{path}:{number}: empty word or tag; mend the line")
        if not words:
            start = number
        words.append(word)
        tags.append(tag)
    close()
    if not found:
        raise DataError(f"{path}: no sentences; give a file with at least one")
    return found


def _is_word(line: str) -> bool:
    return bool(line.strip()) and not line.startswith((DOCUMENT, "# "))


def _columns(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def tag_names(examples: list[Tagged]) -> tuple[str, ...]:
    """All tags that occur, "O" first, the rest by code point."""
    seen = {tag for example in examples for tag in example.tags or ()}
    return tuple(sorted(seen, key=lambda tag: (tag != "O", tag)))
