"""The options of every verb that reads text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from albert_jax.data.sources.sources import ReadOptions

Directory = Annotated[str, tyro.conf.arg(metavar="DIR")]
Sources = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="FILE",
        help="Text files or quoted patterns (also .gz, .jsonl, .parquet, gs://), "
        "tfds:NAME[/CONFIG][:SPLIT], hf:[OWNER/]NAME[/CONFIG][:SPLIT], or python-docs: for the "
        "documentation that Python carries with it.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How text is found and understood."""

    text: Sources
    format: Literal["paragraphs", "lines", "file"] = "paragraphs"
    """Where a document of a text file ends: at a blank line, at every line, or with the file."""
    field: str = "text"
    """Field that holds the text in JSONL, Parquet, TFDS and Hugging Face datasets."""
    on_bad_text: Literal["stop", "skip"] = "stop"
    """Whether bytes that are not UTF-8 and control characters are errors, or their lines are left
    out."""
    rule: Literal["split", "line"] = "split"
    """Whether sentences are found, or every line is one."""
    language: str = "en"
    """Language whose abbreviations the sentence splitter knows."""

    def reading(self, unit_tokens: int = 32) -> ReadOptions:
        """How files are understood."""
        from albert_jax.data.sources.sources import ReadOptions

        return ReadOptions(
            format=self.format,
            field=self.field,
            on_bad_text=self.on_bad_text,
            unit_tokens=unit_tokens,
        )


def log(line: str) -> None:
    """Prints a line of progress."""
    print(line, file=sys.stderr, flush=True)
