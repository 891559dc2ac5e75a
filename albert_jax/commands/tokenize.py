"""`albert-jax tokenize`: texts as the tokens and ids that a model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import Positional

from albert_jax.commands.options import OptionalFile, SentenceOptions, write_json_lines
from albert_jax.observe.console import terminal_width

WIDTH = 100
"""Columns of a line of tokens."""


@dataclass(frozen=True, kw_only=True)
class _Vocabulary:
    vocabulary: Positional[Annotated[str, tyro.conf.arg(metavar="RUN|DIR")]]
    """Run folder, exported directory, prepared folder or vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Tokenize(SentenceOptions, _Vocabulary):
    """Show the tokens of texts, with the id of each below it."""

    out: OptionalFile = None
    """Write JSON lines into this file, or to stdout for -."""

    def run(self) -> None:
        """Prints tokens above their ids, or writes JSON lines."""
        texts, _ = self.sentences()
        from albert_jax import files
        from albert_jax.data.vocabularies import masked_text
        from albert_jax.data.vocabularies import vocabulary as vocabularies
        from albert_jax.model_io import run_record
        from albert_jax.model_io.run_record import is_run

        inside = files.join(self.vocabulary, "vocabulary")
        path = inside if files.is_folder(inside) else self.vocabulary
        run = is_run(self.vocabulary)
        vocabulary = run_record.load_vocabulary(self.vocabulary) if run else vocabularies.load(path)
        found = masked_text.tokenize(vocabulary, texts)
        if self.out is not None:
            write_json_lines(found, self.out)
            return
        for each in found:
            print(each["text"], *table(each["tokens"], each["ids"]), sep="\n")


def table(tokens: list[str], ids: list[int]) -> list[str]:
    """Lines of tokens, each token above its id."""
    lines: list[tuple[str, str]] = []
    above, below, used = "", "", 0
    for token, id in zip(tokens, map(str, ids), strict=True):
        columns = terminal_width(token)
        width = max(columns, len(id)) + 1
        if used and used + width > WIDTH:
            lines.append((above, below))
            above, below, used = "", "", 0
        above += token + " " * (width - columns)
        below += id.ljust(width)
        used += width
    lines.append((above, below))
    return [f"  {line}".rstrip() for pair in lines for line in pair]
