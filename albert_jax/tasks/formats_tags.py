"""Tagged words in CoNLL's form: one word per line, blank lines between sentences."""

from __future__ import annotations

from pathlib import Path

from albert_jax.errors import DataError
from albert_jax.tasks.examples import Tagged
from albert_jax.tasks.formats import read_text


def read_conll(
    path: str | Path, *, word_column: int = 0, tag_column: int = -1, tagged: bool = True
) -> list[Tagged]:
    """Sentences of a CoNLL file; columns are counted from 0 (negative: from the end).

    Lines that open a document ("-DOCSTART-") and comments ("# ") are skipped; columns are
    parted by tabs if the line has one, else by white space. ``tagged=False`` reads words only.
    """
    found: list[Tagged] = []
    words: list[str] = []
    tags: list[str] = []
    start, width = 1, 0

    def close() -> None:
        if words:
            found.append(Tagged(f"{path}:{start}", tuple(words), tuple(tags) if tagged else None))
            words.clear()
            tags.clear()

    for number, raw in enumerate(read_text(path).split("\n"), 1):
        line = raw.rstrip("\r")
        if not line.strip() or line.startswith("-DOCSTART-"):
            close()
            continue
        if line.startswith("# ") and not words:
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        width = width or len(fields)
        if len(fields) != width or (tagged and width < 2):
            raise DataError(
                f"{path}:{number}: {len(fields)} columns where {max(width, 2)} are expected; "
                "one word and its tags per line"
            )
        try:
            word, tag = fields[word_column], fields[tag_column]
        except IndexError as error:
            raise DataError(
                f"{path}:{number}: no column {word_column} or {tag_column} among {len(fields)}; "
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


def tag_names(examples: list[Tagged]) -> tuple[str, ...]:
    """All tags that occur, "O" first, the rest by code point."""
    seen = {tag for example in examples for tag in example.tags or ()}
    return tuple(sorted(seen, key=lambda tag: (tag != "O", tag)))
